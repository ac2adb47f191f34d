"""What `fe compare` runs where nothing is said: methods, steps, cases and options that suit a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..options import describe
from ..registry import EDITORS


@dataclass(frozen=True)
class Defaults:
    """Defaults of a comparison. `guidance`: what every guidance of every editor is set to (None: each editor's own)."""

    solvers: tuple[str, ...] = ("euler", "fireflow")
    editors: tuple[str, ...] = ("flowedit",)
    steps: int = 28
    cases: str = "scenes"
    count: int = 24
    guidance: str | None = None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


# FlowEdit's own synthetic comparison: exact velocities, which have no guidance, and every step edited.
MIXTURE = Defaults(
    solvers=("euler",),
    editors=("inversion", "flowedit"),
    steps=100,
    cases="mixture",
    count=20,
    guidance="1",
    settings={"flowedit": {"n_max": "1000000"}},  # beyond the grid means every step
)

DEFAULTS: Mapping[str, Defaults] = {"mixture": MIXTURE, "MixtureModel": MIXTURE}
"""By the model's name, or by its class's where it is handed over; other models take `Defaults()`."""


def defaults_for(model: str) -> Defaults:
    """The defaults for a model as named on the command line ("mixture", "flux:folder"), or by its class."""
    return DEFAULTS.get(model.partition(":")[0], Defaults())


def default_settings(defaults: Defaults, editors: Iterable[str]) -> dict[str, dict[str, str]]:
    """The options, as text, that the defaults give to those editors. Raises RegistryError if one cannot be had."""
    settings = {name: dict(defaults.settings.get(name, {})) for name in editors}
    if defaults.guidance is not None:
        for name, options in settings.items():
            names = [option_name for option_name, *_ in describe(EDITORS[name])]
            options.update({one: defaults.guidance for one in names if "guidance" in one})
    return settings
