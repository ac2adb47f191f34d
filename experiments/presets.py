"""Methods with the settings that their authors publish, by name: METHOD@MODEL or METHOD@SOURCE. Standard library only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ..registry import RegistryError

STEP_COUNTS: Final = frozenset({"n_max", "n_min", "inject"})
"""Options that count steps: they keep their share where a preset is run with other steps than its own."""


@dataclass(frozen=True)
class Preset:
    """A method as published: an editor and a solver by name, `steps`, and the editor's `options` as text, all others being the
    editor's own. `family`: the models it was published for. `paper`: where. `note`: where the public code departs from the
    paper or this package from the public code."""

    editor: str
    solver: str
    steps: int
    family: str
    paper: str
    options: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def options_for(self, steps: int) -> dict[str, str]:
        """The editor's options for that many steps: those that count steps are scaled, rounded, and kept from becoming 0."""
        return {name: self._scaled(text, steps) if name in STEP_COUNTS else text for name, text in self.options.items()}

    def _scaled(self, text: str, steps: int) -> str:
        count = int(text)
        return str(max(min(count, 1), round(count * steps / self.steps)))


def find_preset(name: str) -> Preset:
    """The preset called `name`. Raises RegistryError with the near names."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see fe list presets"
        raise RegistryError(f"unknown preset {name!r}; {hint}")
    return PRESETS[name]


_FLOWEDIT = "Kulikov et al. 2024, arXiv 2412.08629"
_FIREFLOW = "Deng et al. 2024, arXiv 2412.07517"
_RF_EDIT = "Wang et al. 2024, arXiv 2411.04746"
_RF_INVERSION = "Rout et al. 2024, arXiv 2410.10792"
_UNI_EDIT = "Jiao et al. 2025, arXiv 2504.13109"
_DNAEDIT = "Xie et al. 2025, arXiv 2506.01430"
_STEERFLOW = "Dao et al. 2026, arXiv 2604.01715"
_SDEDIT = "Meng et al. 2021, arXiv 2108.01073"
_TWO_CALLS = "The public code evaluates source and target in two calls a step; here they are two rows of one."
_BLOCKS = "The paper injects in all self-attention layers, its code (and this preset) in single-stream blocks only"

PRESETS: Final[Mapping[str, Preset]] = {
    "flowedit@flux": Preset(
        "flowedit", "euler", 28, "FLUX.1-dev", _FLOWEDIT,
        {"n_max": "24", "source_guidance": "1.5", "target_guidance": "5.5"},
        _TWO_CALLS,
    ),
    "flowedit@flux-style": Preset(
        "flowedit", "euler", 28, "FLUX.1-dev", _FLOWEDIT,
        {"n_max": "21", "n_min": "14", "source_guidance": "2.5", "target_guidance": "6.5"},
        "The paper's Table S7 also gives n_max 24 and guidances 1.5 and 4.5.",
    ),
    "flowedit@sd3": Preset(
        "flowedit", "euler", 50, "SD3 medium", _FLOWEDIT,
        {"n_max": "33", "source_guidance": "3.5", "target_guidance": "13.5"},
    ),
    "flowedit@sd3-style": Preset(
        "flowedit", "euler", 50, "SD3 medium", _FLOWEDIT,
        {"n_max": "31", "n_min": "15", "source_guidance": "3.5", "target_guidance": "13.5"},
        "The public code stops with an error where n_min is above 0; this follows the paper.",
    ),
    "flowedit@2rf": Preset(
        "flowedit", "euler", 25, "2-rectified flow (InstaFlow)", _FLOWEDIT,
        {"n_max": "21", "n_min": "1", "source_guidance": "1.5", "target_guidance": "18.5"},
        "From an application of FlowEdit to 2-rectified flow with n_max 19, 21, 23, 25 and target guidance 16.5, 18.5, 20.5.",
    ),
    "fireflow@paper-8": Preset(
        "injection", "fireflow", 8, "FLUX.1-dev", _FIREFLOW,
        {"inject": "1", "last_block": "37", "target_guidance": "2"},
        f"{_BLOCKS}; that code keeps the state in bfloat16, here it is float32.",
    ),
    "fireflow@paper-15": Preset(
        "injection", "fireflow", 15, "FLUX.1-dev", _FIREFLOW,
        {"inject": "2", "last_block": "37", "target_guidance": "2"},
        f"The injected steps are as its authors say beside their code. {_BLOCKS}.",
    ),
    "rf-edit@paper": Preset(
        "injection", "rf-solver", 15, "FLUX.1-dev", _RF_EDIT,
        {"inject": "2", "first_block": "20", "last_block": "37", "target_guidance": "2"},
        f"Published examples take 15 to 25 steps, 2 to 5 of them injected, guidance 2 to 2.5. {_BLOCKS}.",
    ),
    "rf-inversion@paper": Preset(
        "rf-inversion", "euler", 28, "FLUX.1-dev", _RF_INVERSION,
        {"gamma": "0.5", "eta": "0.9", "stop": "0.25", "target_guidance": "3.5"},
        "The public code (followed here) inverts by the generation's steps in their order, so that the network is told other "
        "times than are reached; grid=consistent does not.",
    ),
    "uni-edit@paper": Preset(
        "uni-edit", "uni-inv", 15, "FLUX.1-dev", _UNI_EDIT,
        {"alpha": "0.6", "omega": "5", "source_guidance": "1", "target_guidance": "1"},
        "Its authors have two codes, this is the one for FLUX; code=diffusers takes a signed mask and rounds the steps down.",
    ),
    "uni-edit@paper-0.8": Preset(
        "uni-edit", "uni-inv", 15, "FLUX.1-dev", _UNI_EDIT,
        {"alpha": "0.8", "omega": "5", "source_guidance": "1", "target_guidance": "1"},
        "The stronger edit that the paper also reports.",
    ),
    "flowalign@paper": Preset(
        "flowalign", "euler", 33, "SD3 medium", "Kim et al. 2025, arXiv 2505.23145", {"guidance": "13.5", "pull": "0.01"},
        "The pull to the source acts once a step, as in the public code, so it depends on the number of steps.",
    ),
    "dnaedit@flux": Preset(
        "dnaedit", "euler", 28, "FLUX.1-dev", _DNAEDIT,
        {"n_max": "24", "mix": "0.8", "source_guidance": "1", "target_guidance": "2.5"},
    ),
    "dnaedit@sd3.5": Preset(
        "dnaedit", "euler", 40, "SD3.5", _DNAEDIT,
        {"n_max": "27", "mix": "0.8", "source_guidance": "1", "target_guidance": "3.5"},
        "The public code evaluates the empty prompt where guidance 1 has no use for it: 108 rows in place of 81.",
    ),
    "steerflow@flux": Preset(
        "steerflow", "uni-inv", 15, "FLUX.1-dev", _STEERFLOW,
        {"alpha": "5", "quantile": "0.8", "temperature": "13", "kernel": "5", "target_guidance": "3.5"},
        "The mask by a segmentation model is left out.",
    ),
    "steerflow@sd3": Preset(
        "steerflow", "uni-inv", 30, "SD3", _STEERFLOW,
        {
            "alpha": "5.5", "quantile": "0.95", "temperature": "15", "kernel": "5", "target_guidance": "6.5",
            "cosine": "whole", "mask_from": "text",
        },
        "The public code for SD3 takes one cosine of the whole latent, and the mask from the velocity before guidance. The "
        "mask by a segmentation model is left out.",
    ),
    "ftedit@paper": Preset(
        "ftedit", "euler", 30, "SD3", "Xu et al. 2024, arXiv 2411.15843",
        {"sweeps": "4", "source_guidance": "1", "target_guidance": "2"},
        "Three sweeps after a first one. The control of text features is left out, and so are the rows that the public code "
        "makes for it and for guidance 1: 180 in place of 360.",
    ),
    "dvrf@paper": Preset(
        "dvrf", "euler", 50, "SD3", "Beaudouin et al. 2025, arXiv 2509.05342",
        {"source_guidance": "6", "target_guidance": "16.5", "eta": "1"},
    ),
    "sdedit@flux": Preset(
        "sdedit", "euler", 28, "FLUX.1-dev", _SDEDIT, {"strength": "0.75", "target_guidance": "3.5"},
        "The strongest of FlowEdit's baselines, 7, 14, 21 steps of 28; they do not say their guidance, 3.5 is usual for FLUX.",
    ),
    "sdedit@sd3": Preset(
        "sdedit", "euler", 50, "SD3 medium", _SDEDIT, {"strength": "0.4", "target_guidance": "7"},
        "One of FlowEdit's baselines, strength 0.2 to 0.8; they do not say their guidance, 7 is SD3's usual one.",
    ),
}  # fmt: skip
