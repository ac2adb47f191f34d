"""What the shipped weights are good for: edits that change what was asked and keep the rest. Random weights must not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import pytest
import torch
from fe.cases.base import Case
from fe.cases.scenes import ScenesCases
from fe.editors.flowedit import FlowEdit
from fe.experiments.execute import execute
from fe.metrics.base import Result
from fe.metrics.scenes import Changed, Kept
from fe.models.base import Model, Setup
from fe.models.scenes import ScenesLoader, random_scenes
from fe.solvers.euler import Euler

STEPS, BATCH = 28, 8


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained() -> Model[Any]:
    return ScenesLoader().load(None, Setup())


def shares(model: Model[Any], cases: Sequence[Case]) -> tuple[float, float]:
    """FlowEdit with its defaults: the share of asked attributes changed, and of the others kept."""
    changed, kept = [], []
    for first in range(0, len(cases), BATCH):
        batch = cases[first : first + BATCH]
        outcome = execute(model, FlowEdit(), Euler(), STEPS, batch, seed=0)
        for i, case in enumerate(batch):
            result = Result(outcome.pictures[i], outcome.latents[i], outcome.source_latents[i])
            changed.append(Changed()(case, result))
            kept.append(Kept()(case, result))
    return fmean(changed), fmean(kept)


def test_trained_weights_edit_colours_and_backgrounds(trained: Model[Any]) -> None:
    changed, kept = shares(trained, ScenesCases(kinds="colour,background").take(24))
    assert changed >= 0.70
    assert kept >= 0.85


def test_random_weights_do_not() -> None:
    changed, _ = shares(random_scenes(seed=0), ScenesCases(kinds="colour,background").take(24))
    assert changed < 0.40


def test_equal_prompts_and_guidance_leave_the_picture_alone(trained: Model[Any]) -> None:
    case = ScenesCases().take(1)[0]
    same = Case(case.id, case.picture, case.source, case.source)
    outcome = execute(trained, FlowEdit(source_guidance=3.5, target_guidance=3.5), Euler(), STEPS, [same], seed=0)
    assert (outcome.latents - outcome.source_latents).abs().max() <= 1e-5


def test_cost_is_what_the_paper_counts(trained: Model[Any]) -> None:
    """24 of 28 steps, source and target as two rows of one call: 24 calls and 48 rows a picture."""
    cost = execute(trained, FlowEdit(), Euler(), STEPS, ScenesCases().take(2), seed=0).cost
    assert (cost.calls, cost.rows) == (24, 2 * 48)


@pytest.mark.slow
def test_two_hundred_colour_and_background_edits(trained: Model[Any]) -> None:
    changed, kept = shares(trained, ScenesCases(kinds="colour,background").take(200))
    print(f"\n200 edits: changed {changed:.3f}, kept {kept:.3f}")
    assert changed >= 0.70
    assert kept >= 0.85


@pytest.mark.slow
def test_the_toolkit_adds_little_to_the_network(trained: Model[Any]) -> None:
    """Wall time of `editor.edit` over time inside the network, minus 1, at batch 8: the best of five, as machines get busy."""
    cases = ScenesCases().take(BATCH)
    costs = [execute(trained, FlowEdit(), Euler(), STEPS, cases, seed=seed).cost for seed in range(6)][1:]
    overhead = min(cost.seconds / cost.network_seconds - 1 for cost in costs)
    print(f"\noverhead {100 * overhead:.1f} %")
    assert math.isfinite(overhead)
    assert overhead <= 0.05
