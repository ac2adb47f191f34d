"""Sources that a model draws itself, one for each prompt of a list: cases whose noise is known.

The noise of a picture is that which the editor `from-noise` meets for the same case, so that in a comparison with the same
model, solver, steps, seed and guidance its row generates the target from the very noise that the source came from.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from ..cases.base import Case
from ..cases.pictures import write
from ..cases.prompt_pairs import CAT_DOG, SUFFIXES, Pair, cat_dog, read_pairs
from ..editors.controls import FromNoise
from ..files import PASSING, whole
from ..models.base import Model
from ..registry import CASES, RegistryError
from ..solvers.base import Solver
from .cells import check_ids
from .compare import as_it_is
from .execute import encode, execute
from .fingerprint import hash_model
from .lock import HOLDER, LOCK, locked
from .names import build_cases
from .words import CaseChoice

LIST: Final = "prompts.csv"
"""Written last: a folder that has it is complete."""
MADE_OF: Final = "drawn.json"
"""What the pictures of a folder are drawn by, written first."""


@dataclass(frozen=True)
class Drawing:
    """How sources are drawn. `size`: (height, width) in pixels. `batch`: pictures that go through the model at once, on which
    they depend by no more than rounding. Raises ValueError for a batch below 1."""

    solver: Solver[Any]
    steps: int
    guidance: float
    seed: int
    size: tuple[int, int]
    batch: int = 8

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")


Prompts: TypeAlias = str | Path | Sequence[tuple[str, str]]
"""Pairs (source, target), or what names a list of them: see `find_pairs`."""


def find_pairs(what: Prompts, count: int | None = None, options: Mapping[str, Any] | None = None) -> Sequence[Pair]:
    """The pairs of prompts that are meant, the first `count` of them.

    what: pairs (source, target) themselves; a CSV or JSON-lines file; "cat-dog" or a case set, either with ":COUNT", and a set
    that reads a folder with ":FOLDER". options: of the case set.
    Raises RegistryError for an unknown name, OptionError, ValueError (one sentence) for what cannot be read or drawn from.
    """
    if count is not None and count < 1:
        raise ValueError(f"at least 1 prompt must be asked for, got {count}")
    pairs = (_named(str(what), options or {}) if isinstance(what, str | Path) else _numbered(what))[:count]
    if not pairs:
        raise ValueError("there are no prompts to draw from; give some")
    for pair in pairs:
        if not (pair.source.strip() and pair.target.strip()):
            raise ValueError(f"{pair.id!r} has an empty source or target prompt, and nothing can be drawn from it")
    check_ids(pair.id for pair in pairs)
    return pairs


def set_of(what: Prompts) -> str | None:
    """The name of the case set that is meant, if one is: options may be said of it."""
    name = str(what).partition(":")[0] if isinstance(what, str) and not Path(what).is_file() else ""
    return name if name in CASES else None


def _named(what: str, options: Mapping[str, Any]) -> Sequence[Pair]:
    name, colon, rest = what.partition(":")
    if Path(what).is_file():
        return read_pairs(Path(what))
    if Path(what).suffix in SUFFIXES:
        raise ValueError(f"there is no file {what!r}; name a list of prompts, {CAT_DOG} or a case set")
    if name == CAT_DOG:
        if colon and not re.fullmatch(r"\d{1,9}", rest):
            raise ValueError(f"{what!r} has no number after its colon; write {CAT_DOG}:COUNT, such as {CAT_DOG}:100")
        return cat_dog(int(rest) if colon else None)
    try:
        choice = CaseChoice.read(what)
    except RegistryError as fault:
        raise RegistryError(f"{fault} (or name {CAT_DOG}, or a CSV or JSON-lines file with source and target)") from None
    where = {} if choice.path is None else {"path": choice.path}
    cases = build_cases(choice.name, {**where, **options}).take(choice.size)
    return [Pair(case.id, case.source, case.target, case.kind) for case in cases]


def _numbered(pairs: Sequence[tuple[str, str]]) -> Sequence[Pair]:
    return [Pair(f"{number:04d}", source, target) for number, (source, target) in enumerate(pairs)]


def draw(
    model: Model[Any],
    pairs: Sequence[Pair],
    folder: Path,
    drawing: Drawing,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Draw the source of every pair into `folder`, which becomes a data set that the cases `folder` read: pictures, and at the
    end prompts.csv. What is there already stays: a drawing that was cut short goes on, and ends with the pictures of an
    undisturbed one to the last bit.

    watch: told the number of pictures that are there. Raises ValueError (one sentence) if the folder holds something else, or
    pictures drawn otherwise, or is being written by another process; what drawing one raises: ValueError, FloatingPointError or
    OutOfMemoryError; OSError if it cannot be written.
    """
    height, width = drawing.size
    blank = Case("blank", torch.zeros(3, height, width), "", "")  # it only says where latents are
    latent = encode(model, [blank])
    folder.mkdir(parents=True, exist_ok=True)
    _check_ours(folder)
    with locked(folder):
        _claim(folder, _made_of(model, latent, pairs, drawing))
        for left in folder.glob(f"{PASSING}*"):
            left.unlink(missing_ok=True)
        for first in range(0, len(pairs), drawing.batch):
            batch = {_file(number): pair for number, pair in enumerate(pairs[first : first + drawing.batch], start=first)}
            if not all((folder / name).exists() for name in batch):
                _draw_batch(model, batch, folder, drawing, latent)
            if watch is not None:
                watch(first + len(batch))
        _write(folder / LIST, _listed(pairs))


def count_drawn(folder: Path) -> int:
    """How many pictures are there."""
    return sum(1 for _ in folder.glob("*.png"))


def _draw_batch(model: Model[Any], batch: Mapping[str, Pair], folder: Path, drawing: Drawing, latent: Tensor) -> None:
    """Draw all of a batch and write what is missing of it. latent: of a blank picture, (1, ...)."""
    blank = torch.zeros(3, *drawing.size)
    cases = [Case(pair.id, blank, pair.source, pair.source) for pair in batch.values()]
    editor, like = FromNoise(drawing.guidance), latent.expand(len(cases), *latent.shape[1:])
    outcome = execute(model, editor, drawing.solver, drawing.steps, cases, drawing.seed, source=like)
    for name, picture in zip(batch, outcome.pictures, strict=True):
        if not (folder / name).exists():
            write(picture, folder / name)


def _file(number: int) -> str:
    return f"{number:05d}.png"


def _listed(pairs: Sequence[Pair]) -> str:
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("id", "picture", "source", "target", "kind"))
    lines.writerows((pair.id, _file(number), pair.source, pair.target, pair.kind) for number, pair in enumerate(pairs))
    return text.getvalue()


def _made_of(model: Model[Any], latent: Tensor, pairs: Sequence[Pair], drawing: Drawing) -> dict[str, Any]:
    """What the pictures depend on, as JSON has it: what a reader wants to know as it is, the rest as hashes."""
    setup = asdict(model.setup) if model.setup is not None else {}
    computes = {name: setup[name] for name in ("dtype", "compiled", "quantise", "low_memory") if name in setup}
    return {
        "model": type(model).__name__,
        "weights": hash_model(model),
        "how the model computes": computes | {"device": latent.device.type, "hash": _hash(as_it_is(model, latent))},
        "solver": repr(drawing.solver),
        "steps": drawing.steps,
        "guidance": drawing.guidance,
        "seed": drawing.seed,
        "size": list(drawing.size),
        "prompts": {"count": len(pairs), "hash": _hash(json.dumps(pairs))},
    }


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _check_ours(folder: Path) -> None:
    """Raises ValueError if the folder holds something else than drawn pictures."""
    others = (entry for entry in folder.iterdir() if entry.name not in (LOCK, HOLDER) and not entry.name.startswith(PASSING))
    if any(others) and not (folder / MADE_OF).is_file():
        raise ValueError(f"{str(folder)!r} is not empty and holds no drawn pictures; give --out a new folder")


def _claim(folder: Path, made_of: Mapping[str, Any]) -> None:
    """Note what the pictures are drawn by. Raises ValueError if there are some that were drawn otherwise."""
    path = folder / MADE_OF
    if not (path.is_file() and count_drawn(folder)):
        _write(path, json.dumps(made_of, indent=2) + "\n")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in made_of.items() if found.get(name) != value]
    except (ValueError, AttributeError):
        raise ValueError(f"{str(path)!r} does not say what the pictures beside it are; give --out a new folder") from None
    if other:
        raise ValueError(
            f"{str(folder)!r} holds pictures that were drawn otherwise ({', '.join(other)}); give --out a new folder"
        )


def _write(path: Path, text: str) -> None:
    with whole(path) as file:
        file.write(text.encode())
