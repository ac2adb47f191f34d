"""Where a run is kept: run.json says what ran where, records.jsonl holds one line a cell, pictures/ one picture a cell.

What survives: a picture is forced to disk before it takes its name, and a cell's line is forced to disk after its picture.
So a process that is killed, or a machine that loses power, costs the cells of the batch at work and nothing else. Names of
pictures are not forced to disk: a cell whose picture has lost its name is run again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from torch import Tensor

from ..cases.pictures import write
from ..files import PASSING, whole
from .lock import HOLDER, LOCK, locked
from .manifest import RUN, Manifest, read_manifest
from .records import PICTURES, Finished, Record, heal, picture_folder, picture_name, read_records
from .set_scores import SETS

RECORDS = "records.jsonl"


@dataclass
class RunFolder:
    """A run on disk, with one process at a time that writes to it. Records are appended and forced to disk, after the pictures
    that they name; pictures and run.json appear whole or not at all."""

    path: Path
    manifest: Manifest
    _kept: dict[str, Record]

    @classmethod
    @contextmanager
    def open(cls, path: Path, manifest: Manifest, overwrite: bool = False) -> Iterator[RunFolder]:
        """The folder of that comparison: a new one, or the one where it was begun, healed of whatever a sudden end left there.
        Nobody else can open it inside the `with` block.

        Raises ValueError if the folder holds another run (which `overwrite` removes), is in use for something else, is being
        written by another process, or holds records that cannot be read; OSError if it cannot be written.
        """
        path.mkdir(parents=True, exist_ok=True)
        _check_ours(path)
        with locked(path):
            if overwrite:
                _clear(path)
            folder = cls.look(path, manifest)
            if not (path / RUN).exists():
                _write(path / RUN, manifest.to_json())
            heal(path / RECORDS)
            folder._tidy()
            yield folder

    @classmethod
    def look(cls, path: Path, manifest: Manifest) -> RunFolder:
        """The folder of that comparison as it stands, which need not exist, to be read and not written.
        Raises ValueError if it holds another run or something else, or records that cannot be read."""
        if path.exists():
            _check_ours(path)
        found = read_manifest(path)
        if found is not None and (found.plan, found.shard) != (manifest.plan, manifest.shard):
            names = found.apart(manifest)
            what = f" ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})" if names else ""
            raise ValueError(
                f"{str(path)!r} holds a different run{what}; give --out another folder, or --overwrite to replace it"
            )
        return cls(path, found or manifest, {record.key: record for record in read_records(path / RECORDS)})

    def begin(self, session: Mapping[str, Any]) -> None:
        """Note where and how the records that follow are made."""
        self.manifest = replace(self.manifest, sessions=(*self.manifest.sessions, session))
        _write(self.path / RUN, self.manifest.to_json())

    def end(self, found: Mapping[str, Any]) -> None:
        """Note what was found of the last session."""
        *earlier, last = self.manifest.sessions
        self.manifest = replace(self.manifest, sessions=(*earlier, {**last, **found}))
        _write(self.path / RUN, self.manifest.to_json())

    def keep(self, finished: Sequence[Finished]) -> None:
        """Add cells, and return when they are on the disk. Raises OSError if they cannot be written; a line that was cut off
        by that is healed when the folder is opened again."""
        for record, picture in finished:
            if picture is not None and record.picture is not None:
                self._save(record.picture, picture)
        session = max(0, len(self.manifest.sessions) - 1)
        records = [replace(record, session=session) for record, _ in finished]
        path = self.path / RECORDS
        try:
            with path.open("ab") as file:
                file.write("".join(record.to_json() + "\n" for record in records).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as fault:
            raise OSError(fault.errno, fault.strerror, str(path)) from fault
        self._kept.update((record.key, record) for record in records)

    def keep_original(self, group: str, case: str, picture: Tensor) -> None:
        """Keep what a case shows (`group` "source") or should show ("truth"), if it is not there yet: (3, H, W) in [0, 1]."""
        name = picture_name(group, case)
        if not (self.path / name).exists():
            self._save(name, picture)

    def records(self) -> list[Record]:
        """All records, the last one of each cell."""
        return list(self._kept.values())

    def _save(self, name: str, picture: Tensor) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(picture, path)

    def _tidy(self) -> None:
        """Remove what a killed process left: files that were being written, and the pictures of rows that no record names."""
        named = {record.picture for record in self._kept.values()}
        left = list(self.path.glob(f"{PASSING}*")) + list(self.path.glob(f"{PICTURES}/*/{PASSING}*"))
        for folder in (picture_folder(row.name) for row in self.manifest.rows):
            left += [path for path in (self.path / folder).glob("*.png") if f"{folder}/{path.name}" not in named]
        for path in left:
            path.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Find out by writing, before any work, whether `path` can become or is a folder with files of ours; leave nothing behind.
    Raises ValueError if not, or if the disk is full."""
    ancestor = path
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    try:
        with TemporaryFile(dir=ancestor, prefix=PASSING) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as fault:
        raise ValueError(
            f"the output folder {str(path)!r} cannot be written ({fault.strerror}); give --out another one"
        ) from fault


def _check_ours(path: Path) -> None:
    """Raises ValueError if the folder holds something else than a run, and nothing that a run left when it was ended early."""
    others = (entry for entry in path.iterdir() if entry.name not in (LOCK, HOLDER) and not entry.name.startswith(PASSING))
    if (path / RUN).exists() or not any(others):
        return
    if any(path.glob(f"shard-*/{RUN}")):
        raise ValueError(
            f"{str(path)!r} holds shards; fe report joins them, --shard runs one, and a whole run needs a new --out"
        )
    raise ValueError(f"{str(path)!r} is not empty and holds no run; give --out a new folder")


def _clear(path: Path) -> None:
    """Remove what runs leave here, and nothing else; run.json last, so that what is left of it can be removed again."""
    shutil.rmtree(path / PICTURES, ignore_errors=True)
    for file in (*path.glob("*.png"), path / "table.txt", path / SETS, path / RECORDS, path / RUN):
        file.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    with whole(path) as file:
        file.write(text.encode())
