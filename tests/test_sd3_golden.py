"""SD3 against what FlowEdit's public code computes on a tiny random network (tests/golden/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fe.editors.base import Request
from fe.editors.flowedit import FlowEdit
from fe.experiments.meter import metered
from fe.solvers.euler import Euler
from torch import Tensor

Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]
Embedded = Callable[[str, dict[str, Tensor]], Any]


def test_flowedit(golden: Golden, embedded: Embedded) -> None:
    case, tensors = golden("flowedit_sd3_yaml")
    settings, latent = case["settings"], tensors["x_src"]
    model = embedded(case["model"], tensors)
    editor = FlowEdit(n_max=settings["n_max"], source_guidance=3.5, target_guidance=13.5)
    request = Request(latent, ("src",), ("tar",))
    grid = model.grid(settings["T_steps"], latent.shape)
    torch.testing.assert_close(torch.tensor(grid.times), tensors["sigmas"], atol=1e-6, rtol=0)

    def noise(step: int, draw: int = 0) -> Tensor:
        return tensors["noise"][settings["n_max"] - step]

    with metered(model.network) as meter, torch.no_grad():
        edit = editor.edit(model, request, Euler(), grid, noise, keep_path=True)
    assert (meter.calls, meter.rows) == (33, 132)
    torch.testing.assert_close(edit.latent, tensors["output"], atol=1e-4, rtol=0)
    for state, expected in zip(edit.path, tensors["traj"], strict=True):
        torch.testing.assert_close(state, expected, atol=1e-4, rtol=0)
