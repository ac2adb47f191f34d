"""Protocols: how the field measures, as named and versioned recipes for `fe compare`, beside what was published with them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from ..registry import RegistryError


class Published(NamedTuple):
    """A row of a paper's table: the method as it is called there, its figures by column (None where it has none), and where it
    stands."""

    method: str
    figures: tuple[float | None, ...]
    source: str


@dataclass(frozen=True)
class Protocol:
    """A recipe. It fills in what was not asked for: `methods` (as `Method.read` takes them, with their steps), `cases` (as
    `CaseChoice.read` does), `metrics`, `model`, and `settings` (options by the name of their owner).

    `version` counts changes of what it measures; `paper` and `what` say whose it is and what it shows. `assumed`: what was
    decided here where the paper or its code is silent, a sentence each. `columns` and `published`: figures as they were
    printed; they are shown beside ours, never among them. `layout`: a file that is written besides, as others read it.
    """

    version: int
    paper: str
    what: str
    model: str
    cases: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    layout: Literal["", "pie-bench"] = ""


def find_protocol(name: str) -> Protocol:
    """The protocol called `name`. Raises RegistryError with the near names."""
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PROTOCOLS)}"
        raise RegistryError(f"unknown protocol {name!r}; {hint}")
    return PROTOCOLS[name]


PROTOCOLS: Final[Mapping[str, Protocol]] = {}
