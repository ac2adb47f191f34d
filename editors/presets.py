"""The settings that the methods' authors publish, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .base import Editor
from .flowedit import FlowEdit
from .injection import Injection


class Preset(NamedTuple):
    """An editor with the solver (by name) and the number of steps that it is published with."""

    editor: Editor
    solver: str
    steps: int


PRESETS: Mapping[str, Preset] = {
    "fireflow": Preset(Injection(inject=1, last_block=37, target_guidance=2.0), "fireflow", 8),
    # published examples: 15 to 25 steps, 2 to 5 of them injected, guidance 2 to 2.5
    "rf-solver-edit": Preset(Injection(inject=2, first_block=20, last_block=37, target_guidance=2.0), "rf-solver", 15),
    "flowedit-flux": Preset(FlowEdit(n_max=24, source_guidance=1.5, target_guidance=5.5), "euler", 28),
    "flowedit-flux-style": Preset(FlowEdit(n_max=21, n_min=14, source_guidance=2.5, target_guidance=6.5), "euler", 28),
    "flowedit-sd3": Preset(FlowEdit(n_max=33, source_guidance=3.5, target_guidance=13.5), "euler", 50),
    "flowedit-sd3-style": Preset(FlowEdit(n_max=31, n_min=15, source_guidance=3.5, target_guidance=13.5), "euler", 50),
    # published for n_max 19, 21, 23, 25 and target guidance 16.5, 18.5, 20.5
    "flowedit-2rf": Preset(FlowEdit(n_max=21, n_min=1, source_guidance=1.5, target_guidance=18.5), "euler", 25),
}
