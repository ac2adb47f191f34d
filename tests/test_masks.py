"""Masks: what lies outside stays the source's, whichever editor and solver walk; and what takes no mask says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fe.cases.base import Case
from fe.editors.base import Edit, Editor, KeyedNoise, Request
from fe.editors.controls import FromNoise
from fe.editors.flowedit import FlowEdit
from fe.editors.injection import Injection
from fe.editors.inversion import Inversion
from fe.experiments.execute import Outcome, execute
from fe.experiments.names import build_solver, mask_editors
from fe.models.flux import FluxModel
from fe.models.mixture import MixtureModel
from fe.models.pictures import latent_masks
from fe.registry import SOLVERS

TAKING = {
    "flowedit": FlowEdit(n_max=4),
    "flowedit with a last phase": FlowEdit(n_max=5, n_min=2),
    "inversion": Inversion(),
    "inversion of the last steps": Inversion(n_max=3),
    "injection": Injection(inject=2),
}
HALVES = torch.zeros(2, 1, 8, 8)
HALVES[0, :, 2:5, 1:6] = 1.0
HALVES[1, :, :, 4:] = 1.0
SOURCE = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tiny_pipeline: Callable[..., Any]) -> FluxModel:
    return FluxModel(tiny_pipeline(guided=True))


def run(model: FluxModel, editor: Editor, solver: str, mask: torch.Tensor | None, keep_path: bool = False) -> Edit:
    request = Request(SOURCE, ("a red star",) * 2, ("a large green square",) * 2, mask)
    grid, noise = model.grid(5, SOURCE.shape), KeyedNoise(0, ("a", "b"), SOURCE)
    with torch.inference_mode():
        return editor.edit(model, request, build_solver(solver), grid, noise, keep_path=keep_path)


@pytest.mark.parametrize("solver", sorted(SOLVERS.builtin))
def test_outside_the_mask_is_the_source_with_every_solver(solver: str, model: FluxModel) -> None:
    for name in ("flowedit with a last phase", "inversion", "injection"):
        edited = run(model, TAKING[name], solver, HALVES).latent
        outside = (HALVES == 0).expand_as(edited)
        assert torch.equal(edited[outside], SOURCE[outside]), name
        assert ((edited - SOURCE)[~outside].abs() > 1e-3).float().mean() > 0.9, name


@pytest.mark.parametrize("name", TAKING)
def test_a_full_mask_is_no_mask_and_an_empty_one_no_edit(name: str, model: FluxModel) -> None:
    plain = run(model, TAKING[name], "fireflow", None).latent
    torch.testing.assert_close(run(model, TAKING[name], "fireflow", torch.ones(2, 1, 8, 8)).latent, plain, atol=1e-6, rtol=0)
    assert torch.equal(run(model, TAKING[name], "fireflow", torch.zeros(2, 1, 8, 8)).latent, SOURCE)


@pytest.mark.parametrize("name", TAKING)
def test_a_soft_mask_lies_between(name: str, model: FluxModel) -> None:
    far = [(run(model, TAKING[name], "euler", torch.full((2, 1, 8, 8), m)).latent - SOURCE).norm() for m in (0.2, 0.6, 1.0)]
    assert 0.0 < far[0] < far[1] < far[2]


@pytest.mark.parametrize("name", TAKING)
def test_what_is_inside_sees_the_source_around_it(name: str, model: FluxModel) -> None:
    """It is an edit of its own, not the plain one with the source pasted over it."""
    plain, masked = (run(model, TAKING[name], "euler", mask).latent for mask in (None, HALVES))
    inside = (HALVES == 1).expand_as(plain)
    assert (plain - masked)[inside].abs().max() > 1e-4


@pytest.mark.parametrize("name", TAKING)
def test_the_path_stays_on_the_source_outside(name: str, model: FluxModel) -> None:
    edit = run(model, TAKING[name], "midpoint", HALVES, keep_path=True)
    outside = (HALVES == 0).expand_as(SOURCE)
    for state in edit.path:
        torch.testing.assert_close(state[outside], SOURCE[outside], atol=1e-6, rtol=0)
    assert torch.equal(edit.path[-1], edit.latent)


def test_rows_keep_their_own_masks(model: FluxModel) -> None:
    edited = run(model, FlowEdit(), "euler", HALVES.flip(0)).latent
    assert not torch.equal(edited, SOURCE)
    kept = (HALVES.flip(0) == 0).expand_as(edited)
    assert torch.equal(edited[kept], SOURCE[kept])


def executed(model: Any, editor: Editor, masks: torch.Tensor | None, picture: torch.Tensor | None = None) -> Outcome:
    picture = torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(1)) if picture is None else picture
    cases = [Case("a", picture, "a red star", "a green square")]
    return execute(model, editor, build_solver("euler"), 4, cases, seed=0, masks=masks)


def test_masks_of_pixels_reach_the_latent(model: FluxModel) -> None:
    masks = torch.zeros(1, 1, 16, 24)
    masks[..., 12:] = 1.0
    outcome = executed(model, FlowEdit(), masks)
    halfway = outcome.latents.shape[-1] // 2
    assert torch.equal(outcome.latents[..., :halfway], outcome.source_latents[..., :halfway])
    assert (outcome.latents[..., halfway:] - outcome.source_latents[..., halfway:]).abs().min() > 0.0


def test_a_place_of_the_latent_has_the_mean_of_its_pixels() -> None:
    masks = torch.tensor([[[[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]]])
    assert latent_masks(masks, torch.zeros(1, 4, 1, 2)).tolist() == [[[[0.25, 1.0]]]]


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.ones(1, 1, 8, 8), r"a mask has the size of its picture; got \(8, 8\) for \(16, 24\) pixels"),
        (torch.ones(2, 1, 16, 24), r"masks are \(1, 1, H, W\), one a picture, got \(2, 1, 16, 24\)"),
        (torch.full((1, 1, 16, 24), 255.0), r"masks are in \[0, 1\], got values from 255 to 255"),
        (torch.full((1, 1, 16, 24), float("nan")), r"masks are in \[0, 1\], got values from nan"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: torch.Tensor, message: str, model: FluxModel) -> None:
    with pytest.raises(ValueError, match=message):
        executed(model, FlowEdit(), masks)


def test_an_editor_without_masks_refuses_and_names_those_with() -> None:
    assert {"flowedit", "inversion", "injection"} <= set(mask_editors())
    assert "from-noise" not in mask_editors()
    with pytest.raises(ValueError, match=r"FromNoise takes no mask; inversion, injection, flowedit.* do"):
        executed(MixtureModel(), FromNoise(), torch.ones(1, 1, 200, 2), torch.zeros(200, 2))
    with pytest.raises(ValueError, match="a mask needs a model of pictures"):
        executed(MixtureModel(), Inversion(), torch.ones(1, 1, 2), torch.zeros(200, 2))
