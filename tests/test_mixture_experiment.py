"""The mixture experiment's figures, measured elsewhere in float64 with 20,000 points and 100 steps."""

from __future__ import annotations

from functools import cache
from statistics import mean

import pytest
from fe.cases.mixture import MixtureCases
from fe.editors.base import Editor
from fe.editors.flowedit import FlowEdit
from fe.editors.inversion import Inversion
from fe.experiments.execute import execute
from fe.experiments.names import build_solver
from fe.metrics.base import Result
from fe.metrics.mixture import ModeDistance, TransportCost, WrongMode
from fe.models.mixture import MixtureModel

EVERY_STEP = 10_000
FLOWEDIT = FlowEdit(n_max=EVERY_STEP, source_guidance=1.0, target_guidance=1.0)
INVERSION = Inversion(target_guidance=1.0)


@cache
def figures(editor: Editor, solver: str, steps: int, target: str = "target", clouds: int = 20) -> tuple[float, float, float]:
    """Transport cost, share at the wrong mode and distance to the mode, means over the clouds."""
    cases = MixtureCases(target=target).take(clouds)
    outcome = execute(MixtureModel(), editor, build_solver(solver), steps, cases, seed=0)
    results = [Result(*parts) for parts in zip(outcome.pictures, outcome.latents, outcome.source_latents, strict=True)]
    cost, wrong, distance = (
        mean(metric(case, result) for case, result in zip(cases, results, strict=True))
        for metric in (TransportCost(), WrongMode(), ModeDistance())
    )
    return cost, wrong, distance


def test_inversion_mixes_the_modes() -> None:
    cost, wrong, distance = figures(INVERSION, "euler", 100)
    assert cost == pytest.approx(263.5, abs=6.0)
    assert wrong == pytest.approx(0.265, abs=0.01)
    assert distance == pytest.approx(1.40, abs=0.03)


def test_flowedit_keeps_them_apart_and_stops_short_of_them() -> None:
    cost, wrong, distance = figures(FLOWEDIT, "euler", 100)
    assert cost == pytest.approx(112.0, abs=0.6)
    assert wrong <= 0.005
    assert distance == pytest.approx(1.85, abs=0.04)


def test_no_method_can_go_wrong_with_the_printed_target() -> None:
    inverted, _, _ = figures(INVERSION, "euler", 100, "printed-target", 5)
    edited, _, _ = figures(FLOWEDIT, "euler", 100, "printed-target", 5)
    assert inverted == pytest.approx(133.8, abs=0.8)
    assert edited == pytest.approx(130.7, abs=0.8)
    assert figures(INVERSION, "euler", 100, "printed-target", 5)[1] == 0.0
    assert figures(FLOWEDIT, "euler", 100, "printed-target", 5)[1] == 0.0


@pytest.mark.parametrize(
    ("solver", "share"), [("euler", 0.021), ("midpoint", 0.05), ("fireflow", 0.06), ("alf", 0.07), ("uni-inv", 0.10)]
)
def test_better_solvers_do_not_help_flowedit_here(solver: str, share: float) -> None:
    assert figures(FLOWEDIT, solver, 25)[1] == pytest.approx(share, abs=0.02)
    assert solver == "euler" or figures(FLOWEDIT, solver, 25)[1] > 2 * figures(FLOWEDIT, "euler", 25)[1]
