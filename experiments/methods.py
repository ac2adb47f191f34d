"""How one picture is edited: an editor, a solver and a number of steps, from names, from objects, or from a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..editors.base import Editor
from ..options import by_name
from ..solvers.base import Solver
from .names import build_editor, build_solver
from .presets import Preset, find_preset

USUAL: Final = Preset("flowedit", "euler", 28, family="any", paper="")
"""What is done where nothing is said: no preset, but of a preset's shape."""


@dataclass(frozen=True)
class Way:
    """How to edit; `name` is fit for the names of results, `walker` names the solver. `of_model`: what was said of the model's
    own options."""

    name: str
    walker: str
    editor: Editor
    solver: Solver[Any]
    steps: int
    of_model: Mapping[str, Any]


def choose(
    editor: str | Editor | None = None,
    solver: str | Solver[Any] | None = None,
    steps: int | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Way:
    """The way to edit. What is given goes before what the preset says, and that before what is usual: FlowEdit by 28 Euler
    steps. options: as `options.by_name` takes them, for the editor and the solver where they are named, and the model.
    Raises RegistryError, OptionError, or ValueError for an editor beside a preset of another."""
    published = USUAL if preset is None else find_preset(preset)
    if preset is not None and editor not in (None, published.editor):
        raise ValueError(f"the preset {preset!r} is of the editor {published.editor!r}; leave out the editor, or the preset")
    chosen = published.editor if editor is None else editor
    walker = published.solver if solver is None else solver
    count = published.steps if steps is None else steps
    if count < 1:
        raise ValueError(f"steps must be at least 1, got {count}")
    for what, one, kind in (("editor", chosen, Editor), ("solver", walker, Solver)):
        if not isinstance(one, str | kind):
            raise ValueError(f"the {what} must be a name, or an object of a class that extends {kind.__name__}, got {one!r}")
    given = by_name(options or {}, [name for name in (chosen, walker, "model") if isinstance(name, str)])
    name = f"{preset or _named(chosen)}-{_named(walker)}-{count}"
    altered = any(values for what, values in given.items() if what != "model")
    if preset is not None and (walker, count) == (published.solver, published.steps) and not altered:
        name = preset
    built = build_editor(chosen, {**published.options_for(count), **given[chosen]}) if isinstance(chosen, str) else chosen
    walking = build_solver(walker, given[walker]) if isinstance(walker, str) else walker
    return Way(name, _named(walker), built, walking, count, given["model"])


def _named(what: str | Editor | Solver[Any]) -> str:
    return what if isinstance(what, str) else type(what).__name__.lower()
