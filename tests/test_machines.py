"""What only a GPU or the published weights can show. Left out by default: `pytest -m gpu`, `pytest -m weights`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fe.cases.scenes import ScenesCases
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.execute import execute
from fe.experiments.names import load_model
from fe.metrics.base import Result
from fe.metrics.pixels import RMSE
from fe.models.base import Model, Setup
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow

EDITS = [(FlowEdit(), Euler()), (Inversion(), Euler()), (Injection(inject=2), FireFlow())]


@pytest.mark.gpu
@pytest.mark.parametrize(("editor", "solver"), EDITS)
def test_a_gpu_makes_the_pictures_that_the_cpu_makes(editor: Any, solver: Any) -> None:
    cases = ScenesCases().take(6)
    here, there = (
        execute(load_model("scenes", Setup(device=device)), editor, solver, 8, cases, seed=0) for device in ("cpu", "cuda")
    )
    assert (here.cost.calls, here.cost.rows) == (there.cost.calls, there.cost.rows)
    assert (here.pictures - there.pictures).abs().mean() < 2e-3
    assert there.latents.is_cuda
    assert there.latents.dtype == torch.float32
    assert there.cost.peak_bytes is not None
    assert there.cost.peak_bytes > 0


@pytest.mark.gpu
def test_a_bfloat16_network_keeps_a_float32_state_on_the_gpu() -> None:
    cases = ScenesCases().take(6)
    fine, coarse = (
        execute(load_model("scenes", Setup(device="cuda", dtype=dtype)), FlowEdit(), Euler(), 28, cases, seed=0)
        for dtype in ("float32", "bfloat16")
    )
    assert coarse.latents.dtype == torch.float32
    assert 0 < (fine.pictures - coarse.pictures).abs().mean() < 2e-2


@pytest.fixture(scope="module", params=["flux-dev", "flux-schnell"])
def published(request: pytest.FixtureRequest) -> Model[Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_model(request.param, Setup(device=device, dtype="bfloat16"))


@pytest.mark.weights
def test_published_weights_edit_and_come_back(published: Model[Any]) -> None:
    """A drawn picture, enlarged to 256x256: the codec holds it, the round trip is worse than the codec and better than grey."""
    drawn = ScenesCases(kinds="colour").take(1)[0]
    large = torch.nn.functional.interpolate(drawn.picture[None], size=256, mode="nearest")[0]
    case = type(drawn)(drawn.id, large, drawn.source, drawn.target)
    back = type(drawn)(drawn.id, large, drawn.source, drawn.source)
    edited = execute(published, FlowEdit(), Euler(), 4, [case], seed=0)
    assert (edited.cost.calls, edited.cost.rows) == (3, 6)
    codec = published.decode(published.encode(large[None]))[0].cpu()
    trip = execute(published, Inversion.reconstruction(), FireFlow(), 8, [back], seed=0)
    errors = [
        RMSE()(case, Result(picture, trip.latents[0], trip.source_latents[0]))
        for picture in (codec, trip.pictures[0], torch.full_like(large, 0.5))
    ]
    assert errors == sorted(errors)
