"""Where a run is kept: run.json says what ran where, records.jsonl holds one line a cell, pictures/ one picture a cell."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from ..cases.pictures import write
from .manifest import RUN, Manifest, read_manifest
from .records import PICTURES, Finished, Record, picture_name, read_records

RECORDS, LOCK = "records.jsonl", ".lock"


@dataclass
class RunFolder:
    """A run on disk, with one process at a time that writes to it. Records are appended and forced to disk, after the pictures
    that they name; pictures and run.json appear whole or not at all."""

    path: Path
    manifest: Manifest

    @classmethod
    @contextmanager
    def open(cls, path: Path, manifest: Manifest, overwrite: bool = False) -> Iterator[RunFolder]:
        """The folder of that comparison: a new one, or the one where it was begun, healed of whatever a sudden end left there.
        Nobody else can open it inside the `with` block.

        Raises ValueError if the folder holds another run (which `overwrite` removes), is in use for something else, or is being
        written by another process.
        """
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            found = _found(path, overwrite)
            if found is not None and overwrite:
                _clear(path)
                found = None
            if found is not None and (found.plan, found.shard) != (manifest.plan, manifest.shard):
                raise ValueError(
                    f"{str(path)!r} holds a different run; give --out another folder, or --overwrite to replace it"
                )
            _mend(path)
            folder = cls(path, found or manifest)
            if found is None:
                folder._write(RUN, folder.manifest.to_json())
            yield folder

    def begin(self, session: Mapping[str, Any]) -> None:
        """Note where and how the records that follow are made."""
        self.manifest = replace(self.manifest, sessions=(*self.manifest.sessions, session))
        self._write(RUN, self.manifest.to_json())

    def keep(self, finished: Sequence[Finished]) -> None:
        """Add cells, and return when they are on the disk."""
        for record, picture in finished:
            if picture is not None and record.picture is not None:
                self._save(record.picture, picture)
        session = max(0, len(self.manifest.sessions) - 1)
        with (self.path / RECORDS).open("a", encoding="utf-8") as file:
            file.writelines(replace(record, session=session).to_json() + "\n" for record, _ in finished)
            file.flush()
            os.fsync(file.fileno())

    def keep_original(self, group: str, case: str, picture: Tensor) -> None:
        """Keep what a case shows (`group` "source") or should show ("truth"), if it is not there yet: (3, H, W) in [0, 1]."""
        name = picture_name(group, case)
        if not (self.path / name).exists():
            self._save(name, picture)

    def records(self) -> list[Record]:
        """All records, the last one of each cell. Raises ValueError naming the line if one cannot be read."""
        return read_records(self.path / RECORDS)

    def done(self, keys: Collection[str]) -> dict[str, Record]:
        """The records of those cells that came out without an error, by key."""
        return {record.key: record for record in self.records() if record.key in keys and record.error is None}

    def failures(self) -> list[str]:
        """Why cells failed, in the order in which they did; those that came out later are not among them."""
        return [str(record) for record in self.records() if record.error is not None]

    def _save(self, name: str, picture: Tensor) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(picture, path)

    def _write(self, name: str, text: str) -> None:
        with NamedTemporaryFile("w", dir=self.path, prefix=f".{name}-", delete=False, encoding="utf-8") as passing:
            passing.write(text)
        os.chmod(passing.name, 0o644)
        os.replace(passing.name, self.path / name)


def check_writable(path: Path) -> None:
    """Find out by writing, before any work, whether `path` can become or is a folder with files of ours; leave nothing behind.
    Raises ValueError if not."""
    ancestor = path
    while not ancestor.exists() and ancestor != ancestor.parent:
        ancestor = ancestor.parent
    try:
        os.rmdir(mkdtemp(dir=ancestor, prefix=".fe-"))
    except OSError as fault:
        raise ValueError(
            f"the output folder {str(path)!r} cannot be written ({fault.strerror}); give --out another one"
        ) from fault


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others out. The system lets go of the lock when the process ends, however it ends."""
    holder = path / LOCK
    try:
        with FileLock(holder, timeout=0):
            yield
    except Timeout:
        raise ValueError(f"{str(path)!r} is in use by another process; wait for it, or give --out another folder") from None


def _found(path: Path, overwrite: bool) -> Manifest | None:
    """The run that the folder holds; None where it is empty. Raises ValueError if it holds something else."""
    try:
        found = read_manifest(path)
    except ValueError:
        if overwrite:
            _clear(path)
            return None
        raise
    if found is None and any(entry.name != LOCK for entry in path.iterdir()):
        raise ValueError(f"{str(path)!r} is not empty and holds no run; give --out a new folder")
    return found


def _clear(path: Path) -> None:
    """Remove what runs leave here, and nothing else."""
    shutil.rmtree(path / PICTURES, ignore_errors=True)
    for file in (*path.glob("*.png"), path / "table.txt", path / RECORDS, path / RUN):
        file.unlink(missing_ok=True)


def _mend(path: Path) -> None:
    """Cut off a last record that was only half written, so that the next one starts a line."""
    records = path / RECORDS
    if records.exists():
        content = records.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(records, len(whole))
