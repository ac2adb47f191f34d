"""The cells that a run's folder has, and how one of them is named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from .folder import RECORDS
from .manifest import RUN, Manifest, read_manifest
from .records import PICTURES, Record, picture_name, read_records
from .results import read_results


@dataclass(frozen=True)
class Kept:
    """A cell as a run's folder has it."""

    folder: Path
    manifest: Manifest
    record: Record

    @property
    def name(self) -> str:
        """ROW/CASE, with the seed where the row has several."""
        several = next(len(row.seeds) > 1 for row in self.manifest.rows if row.name == self.record.row)
        return f"{self.record.row}/{self.record.case}" + (f"-seed{self.record.seed}" if several else "")

    @property
    def session(self) -> Mapping[str, Any]:
        """Where and how it was made. Raises ValueError if the folder does not say."""
        if self.record.session >= len(self.manifest.sessions):
            raise ValueError(f"{str(self.folder / RUN)!r} has no session {self.record.session}, which made {self.name}")
        return self.manifest.sessions[self.record.session]

    @property
    def picture(self) -> str:
        """What the file of its picture is called in the folder, whether it is there or not."""
        return picture_name(self.record.row, self.name[len(self.record.row) + 1 :])

    def goes_by(self, word: str) -> bool:
        """Whether that is its key, its name, or its picture."""
        file = self.picture.removeprefix(f"{PICTURES}/").removesuffix(".png")
        if word in (self.record.key, self.name, self.picture, file):
            return True
        return word.endswith(".png") and Path(word).resolve() == (self.folder / self.picture).resolve()

    def begins(self, word: str) -> bool:
        """Whether its key or its name begins like that."""
        return self.record.key.startswith(word) or self.name.startswith(word)


def find(run: Path, cell: str | None) -> Kept:
    """The cell that is asked for, as the run's folder has it. Raises ValueError if there is none, or more than one."""
    kept = _all_of(run)
    if cell is None:
        return next((one for one in kept if one.record.error is None), kept[0])
    found = [one for one in kept if one.goes_by(cell)] or [one for one in kept if one.begins(cell)]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(one.name for one in found[:3]) + (", ..." if len(found) > 3 else "")
        raise ValueError(f"{cell!r} may be {len(found)} cells of {str(run)!r}: {shown}; write more of it")
    names = list(chain.from_iterable((one.name, one.record.key) for one in kept))
    near = difflib.get_close_matches(cell, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"they are called like {kept[0].name}"
    raise ValueError(f"no cell of {str(run)!r} is called {cell!r}; {hint}")


def _all_of(run: Path) -> list[Kept]:
    """The cells of the one comparison in a folder, those that came out before others of the same key."""
    several = read_results([run])
    if len(several) > 1:
        raise ValueError(f"{str(run)!r} holds {len(several)} comparisons; name the folder of one of them")
    found: dict[str, Kept] = {}
    for folder in several[0].folders:
        manifest = read_manifest(folder)
        for record in read_records(folder / RECORDS) if manifest is not None else []:
            if manifest is not None and (record.key not in found or record.error is None):
                found[record.key] = Kept(folder, manifest, record)
    if not found:
        raise ValueError(f"the run in {str(run)!r} has no cells yet; run fe compare first")
    return list(found.values())
