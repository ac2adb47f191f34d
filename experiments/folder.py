"""Where a run is kept: run.json says what ran where, records.jsonl holds one line a cell, pictures/ one picture a cell."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
from typing import Any

from torch import Tensor

from ..cases.pictures import write
from .records import Record, only, read_records

RUN, RECORDS, PICTURES = "run.json", "records.jsonl", "pictures"


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Records are appended and forced to disk; pictures and run.json appear whole or not at all."""

    path: Path

    @classmethod
    def open(cls, path: Path, plan: str, environment: Mapping[str, Any], overwrite: bool = False) -> RunFolder:
        """The folder of the comparison with the hash `plan`: a new one, or the one where it was begun.

        Raises ValueError if the folder holds another run (which `overwrite` removes) or is in use for something else.
        """
        folder = cls(path)
        found = folder._plan()
        if found is None and path.exists() and any(path.iterdir()):
            raise ValueError(f"{str(path)!r} is not empty and holds no run; give --out a new folder")
        if found not in (None, plan) and not overwrite:
            raise ValueError(f"{str(path)!r} holds a different run; give --out another folder, or --overwrite to replace it")
        if found is not None and overwrite:
            folder._clear()
        path.mkdir(parents=True, exist_ok=True)
        folder._mend()
        if folder._plan() is None:
            folder._write(RUN, json.dumps({"plan": plan, **environment}, indent=2) + "\n")
        return folder

    def append(self, records: Iterable[Record]) -> None:
        """Add records, and return when they are on the disk."""
        with (self.path / RECORDS).open("a", encoding="utf-8") as file:
            file.writelines(record.to_json() + "\n" for record in records)
            file.flush()
            os.fsync(file.fileno())

    def done(self, keys: Collection[str]) -> dict[str, Record]:
        """The records of those cells that came out without an error, by key."""
        return only(read_records(self.path / RECORDS), keys)

    def failures(self) -> list[str]:
        """Why cells failed, in the order in which they did; those that came out later are not among them."""
        failed = (record for record in read_records(self.path / RECORDS) if record.error is not None)
        return [f"{record.case} in {record.row}: {record.error}" for record in failed]

    def picture(self, group: str, case: str) -> Path:
        """Where the picture of a case lies: `group` is a row's name, "source" or "truth"."""
        return self.path / PICTURES / _safe(group) / f"{_safe(case)}.png"

    def save_picture(self, group: str, case: str, picture: Tensor) -> None:
        """Write (3, H, W) in [0, 1] as PNG."""
        path = self.picture(group, case)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(picture, path)

    def _plan(self) -> str | None:
        """The hash of the comparison that the folder holds; None if it holds none."""
        try:
            found = json.loads((self.path / RUN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, NotADirectoryError):
            return ""
        return str(found.get("plan", "")) if isinstance(found, dict) else ""

    def _clear(self) -> None:
        """Remove what runs leave here, and nothing else."""
        shutil.rmtree(self.path / PICTURES, ignore_errors=True)
        for file in (*self.path.glob("*.png"), self.path / RECORDS, self.path / RUN):
            file.unlink(missing_ok=True)

    def _mend(self) -> None:
        """Cut off a last record that was only half written, so that the next one starts a line."""
        path = self.path / RECORDS
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(path, len(whole))

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


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name)
