"""Groups of cells at work: what does not fit is halved, what is faulty is recorded, and the rest comes out as it would have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from fe.cases.mixture import MixtureCases
from fe.editors.base import Edit, Editor
from fe.editors.flowedit import FlowEdit
from fe.editors.inversion import Inversion
from fe.experiments.attended import Trace
from fe.experiments.bench import Bench
from fe.experiments.cells import Group, make_cells
from fe.experiments.compare import prepare
from fe.experiments.execute import execute
from fe.experiments.plan import Comparison
from fe.experiments.records import Record
from fe.experiments.words import Method
from fe.metrics.base import Metric
from fe.models.base import Model
from fe.models.mixture import MixtureModel
from fe.ode import Tick
from fe.solvers.base import Solver
from fe.solvers.euler import Euler
from fe.solvers.fireflow import FireFlow
from fe.solvers.uni_inv import UniInv
from torch import Tensor

PLAN = Comparison(
    methods=(Method("flowedit", "euler"),),
    model="mixture",
    cases="mixture",
    count=8,
    steps=(6,),
    settings={"mixture": {"points": "20"}},
)
PREPARED = prepare(PLAN)
ROW = PREPARED.rows[0]
IDS = [case.id for case in PREPARED.cases]


def group(editor: Editor = ROW.editor, model: Model[Any] = PREPARED.model) -> Group:
    """All cases through one row."""
    return Group(tuple(make_cells([replace(ROW, editor=editor)], PREPARED.cases, "m", "n")), tuple(PREPARED.cases))


def bench(model: Model[Any] | None = None, **metrics: Metric) -> Bench:
    return Bench(model or MixtureModel(), {"edit": metrics} if metrics else PREPARED.metrics)


def worked(at: Bench, one: Group) -> dict[str, Record]:
    return {record.case: record for record, _ in at.finish(at.edit(one))}


def assert_close(found: Record, expected: Record) -> None:
    """Another batch size is another rounding: scores within 1e-4, relative."""
    assert found.scores == pytest.approx(expected.scores, rel=1e-4, abs=1e-5)
    assert found.cost is not None
    assert expected.cost is not None
    assert (found.cost.rows, found.cost.calls) == (expected.cost.rows, expected.cost.calls)


# out of memory


@dataclass
class Room:
    """A GPU that holds so many rows, and what was asked of it."""

    rows: int
    never: Tensor | None = None

    def __post_init__(self) -> None:
        self.asked: list[int] = []

    def check(self, latent: Tensor) -> None:
        self.asked.append(len(latent))
        if len(latent) > self.rows or (self.never is not None and any(torch.equal(row, self.never) for row in latent)):
            raise torch.OutOfMemoryError("CUDA out of memory.")


@dataclass(frozen=True)
class Hungry(Editor):  # type: ignore[misc]  # to mypy, imports of fe from tests are Any
    """FlowEdit where memory is short."""

    room: Room
    editor: Editor = ROW.editor

    def edit(self, model: Any, request: Any, solver: Any, grid: Any, noise: Any, *, keep_path: bool = False) -> Edit:
        self.room.check(request.latent)
        return self.editor.edit(model, request, solver, grid, noise, keep_path=keep_path)


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_later_ones_start_there() -> None:
    room, at = Room(3), bench()
    found, whole = worked(at, group(Hungry(room))), worked(bench(), group())
    assert room.asked == [8, 4, 2, 2, 2, 2]
    assert list(found) == IDS
    for case, record in found.items():
        assert record.cost is not None
        assert record.cost.batch == 2
        assert_close(record, whole[case])
    worked(at, group(Hungry(room)))
    assert room.asked[6:] == [2, 2, 2, 2]


def test_a_case_that_does_not_fit_alone_is_recorded_and_the_others_come_out() -> None:
    found = worked(bench(), group(Hungry(Room(8, never=PREPARED.cases[5].picture))))
    errors = {case: record.error for case, record in found.items() if record.error is not None}
    assert list(errors) == [IDS[5]]
    assert errors[IDS[5]].startswith("OutOfMemoryError: out of GPU memory")
    assert len(found) == 8


def test_another_fault_does_not_make_later_batches_smaller() -> None:
    asked: list[int] = []

    @dataclass(frozen=True)
    class Picky(Editor):  # type: ignore[misc]
        def edit(self, model: Any, request: Any, *rest: Any, keep_path: bool = False) -> Edit:
            asked.append(len(request.latent))
            if len(asked) == 1:
                raise RuntimeError("only once")
            return Edit(request.latent)

    at = bench()
    worked(at, group(Picky()))
    worked(at, group(Picky()))
    assert asked == [8] + [1] * 8 + [8]


def test_encoding_is_halved_too_and_a_picture_that_cannot_be_encoded_is_lost_alone() -> None:
    class Short(MixtureModel):  # type: ignore[misc]
        def encode(self, pictures: Tensor) -> Tensor:
            room.check(pictures)
            latents: Tensor = super().encode(pictures)
            return latents

    room = Room(3, never=PREPARED.cases[2].picture)
    found, whole = worked(bench(Short()), group()), worked(bench(), group())
    assert room.asked[:4] == [8, 4, 2, 2]
    assert [case for case, record in found.items() if record.error is not None] == [IDS[2]]
    for case in IDS[:2] + IDS[3:]:
        assert_close(found[case], whole[case])
        assert found[case].cost.batch == 7  # type: ignore[union-attr]


# states that are not finite


class Breaking(MixtureModel):  # type: ignore[misc]
    """Velocities are NaN where `breaks` says so of the time and the row's own state."""

    def __init__(self, breaks: Callable[[float, Tensor], bool]) -> None:
        super().__init__()
        self.breaks = breaks

    def velocity(self, t: float | Tensor, x: Tensor, condition: Any) -> Tensor:
        found = super().velocity(t, x, condition)
        wrong = torch.tensor([self.breaks(float(t), row) for row in x])
        return torch.where(wrong[:, None, None], math.nan, found)


CASE = MixtureCases(points=6).take(1)[0]
FLOWEDIT = FlowEdit(source_guidance=1.0, target_guidance=1.0, n_max=6)
INVERSION = Inversion(source_guidance=1.0, target_guidance=1.0)


@pytest.mark.parametrize(
    ("editor", "solver", "above", "said"),
    [
        (FLOWEDIT, Euler(), (0.0, 0.55), "from step 6 of 10 on"),  # t = 0.5 is where the sixth step of ten begins
        (FLOWEDIT, Euler(), (0.0, 0.15), "from step 10 of 10 on"),  # found after the last evaluation only
        (FLOWEDIT, FireFlow(), (0.0, 0.5), "from step 6 of 10 on"),  # met at its middle, 0.45
        (replace(FLOWEDIT, n_min=2), Euler(), (0.0, 0.25), "from step 9 of 10 on"),
        (replace(FLOWEDIT, paired=False), FireFlow(), (0.0, 0.5), "from step 6 of 10 on"),  # the source's states stay finite
        (replace(FLOWEDIT, paired=False), Euler(), (0.0, 0.55), "from step 6 of 10 on"),
        (INVERSION, UniInv(), (0.45, 0.55), "from step 5 of 10 of the inversion on"),  # met at its end, 0.5
        (INVERSION, Euler(), (0.45, 1.0), "from step 6 of 10 of the inversion on"),  # t = 0.5 on the way up
        (replace(INVERSION, n_max=7), Euler(), (0.65, 1.0), "from step 4 of 10 on"),  # only the way down comes to 0.7
    ],
)
def test_the_step_that_lost_a_state_is_named(
    editor: Editor, solver: Solver[Any], above: tuple[float, float], said: str
) -> None:
    model = Breaking(lambda t, row: above[0] < t < above[1])
    with pytest.raises(FloatingPointError) as caught:
        execute(model, editor, solver, 10, [CASE], 0)
    assert str(caught.value) == f"the state is not finite {said}; use more steps or a lower guidance scale"


def test_a_source_that_is_not_finite_is_told_apart() -> None:
    with pytest.raises(FloatingPointError, match=r"^the source's latent is not finite; let the model compute in another dtype"):
        execute(MixtureModel(), FLOWEDIT, Euler(), 10, [replace(CASE, content=CASE.picture * math.inf)], 0)


def test_the_others_of_a_batch_keep_what_they_came_to() -> None:
    """They are not run again: their cost is the batch's, and their bits are those of a batch in which nothing broke."""
    far = PREPARED.cases[3].picture + 1000.0
    cases = [*PREPARED.cases[:3], replace(PREPARED.cases[3], content=far), *PREPARED.cases[4:]]
    one = Group(tuple(make_cells([ROW], cases, "m", "n")), tuple(cases))
    found = worked(bench(Breaking(lambda t, row: bool(row.mean() > 300) and t < 0.6)), one)
    assert str(found[IDS[3]].error).startswith("FloatingPointError: the state is not finite from step 4 of 6 on")
    whole = worked(bench(Breaking(lambda t, row: False)), one)
    for case in IDS[:3] + IDS[4:]:
        assert found[case].scores == whole[case].scores
        assert found[case].cost.batch == 8  # type: ignore[union-attr]


class Overflowing(MixtureModel):  # type: ignore[misc]
    """Its codec makes nothing of one case, the first of the widest latents."""

    def decode(self, latents: Tensor) -> Tensor:
        pictures = super().decode(latents).clone()
        pictures[latents.flatten(1).amax(1).argmax(), 0] = math.nan
        return pictures


def test_a_picture_that_the_codec_lost_is_a_failure_and_not_an_undefined_score() -> None:
    found = worked(bench(Overflowing()), group())
    (lost,) = [record for record in found.values() if record.error is not None]
    assert str(lost.error).startswith(
        "FloatingPointError: the picture decoded from a finite latent is not finite; let the model"
    )
    assert {record.cost.batch for record in found.values() if record.cost is not None} == {8}
    with pytest.raises(FloatingPointError, match="decoded from a finite latent"):
        execute(Overflowing(), FLOWEDIT, Euler(), 10, [CASE], 0)


def test_a_state_that_was_lost_between_evaluations_was_lost_in_the_step_before() -> None:
    trace, finite, lost = Trace(), torch.zeros(1, 2), torch.full((1, 2), math.inf)
    ticks = [Tick(1.0, 1.0, 0.5), Tick(0.75, 1.0, 0.5), Tick(0.5, 0.5, 0.0), Tick(0.5, 0.5, 0.0)]
    for tick, x in zip(ticks, (finite, finite, finite, lost), strict=True):
        trace(tick, x, finite)
    assert trace.last == ticks[1]  # the third was of a state that is finite all the way, the source's
    trace(ticks[3], finite, finite)
    assert trace.last == ticks[1]  # and what comes later is no matter


def test_a_velocity_that_is_not_finite_is_of_its_own_step() -> None:
    """Also where the step goes on to evaluate what it made of it, as an implicit one does."""
    trace, finite, lost = Trace(), torch.zeros(1, 2), torch.full((1, 2), math.nan)
    first, second = Tick(0.5, 1.0, 0.5), Tick(0.0, 0.5, 0.0)
    for tick, x, velocity in ((first, finite, finite), (second, finite, lost), (second, lost, lost)):
        trace(tick, x, velocity)
    assert trace.last == second


# plug-ins


@dataclass(frozen=True)
class Gives(Metric):  # type: ignore[misc]
    """A metric that gives what it is told to."""

    label = "given"
    value: Any

    def __call__(self, case: Any, result: Any) -> Any:
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("nor can I say why")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (RuntimeError("two\nlines"), "RuntimeError: two lines"),
        (MuteError(), "MuteError: it does not say why"),
        ("0.5", "TypeError: the metric mine must give a number, got '0.5'"),
        (None, "TypeError: the metric mine must give a number, got None"),
        (math.inf, "ValueError: the metric mine must give a finite number, or NaN where it is not defined, got inf"),
    ],
)
def test_a_metric_that_fails_is_the_reason_of_its_cells(value: Any, said: str) -> None:
    found = worked(bench(mine=Gives(value)), group())
    assert {record.error for record in found.values()} == {said}


@pytest.mark.parametrize(("value", "score"), [(3, 3.0), (torch.tensor(0.25), 0.25), (True, 1.0)])
def test_whatever_is_a_number_is_a_score(value: Any, score: float) -> None:
    records = worked(bench(mine=Gives(value)), group()).values()
    assert {type(record.scores["mine"]) for record in records} == {float}
    assert {record.scores["mine"] for record in records} == {score}


def test_a_reason_is_not_longer_than_a_line() -> None:
    found = worked(bench(mine=Gives(RuntimeError("word " * 1000))), group())
    assert all(record.error is not None and 400 < len(record.error) <= 500 for record in found.values())


def test_an_interrupt_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        worked(bench(mine=Gives(KeyboardInterrupt())), group())


@dataclass(frozen=True)
class Misshapen(Editor):  # type: ignore[misc]
    def edit(self, model: Any, request: Any, *rest: Any, keep_path: bool = False) -> Edit:
        return Edit(request.latent[:, :-1])


@dataclass(frozen=True)
class Meddling(Editor):  # type: ignore[misc]
    """Changes what holds for the whole process, and then may fail."""

    fails: bool

    def edit(self, model: Any, request: Any, *rest: Any, keep_path: bool = False) -> Edit:
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(torch.get_num_threads() + 1)
        if self.fails:
            raise RuntimeError("and now this")
        return Edit(request.latent)


@pytest.mark.parametrize("fails", [False, True])
def test_what_an_editor_sets_for_the_whole_process_is_set_back(fails: bool) -> None:
    before = torch.get_default_dtype(), torch.get_num_threads()
    try:
        bench().edit(group(Meddling(fails)))
        assert (torch.get_default_dtype(), torch.get_num_threads()) == before
    finally:
        torch.set_default_dtype(before[0])
        torch.set_num_threads(before[1])


@dataclass(frozen=True)
class Talkative(Editor):  # type: ignore[misc]
    def edit(self, model: Any, request: Any, *rest: Any, keep_path: bool = False) -> Edit:
        return Edit(request.latent, counts={"seen": torch.tensor(3)})  # type: ignore[dict-item]


def test_latents_of_another_shape_are_refused() -> None:
    found = worked(bench(), group(Misshapen()))
    assert {record.error for record in found.values()} == {
        "ValueError: Misshapen must give latents of the shape that it got, (1, 20, 2), got (1, 19, 2)"
    }


def test_what_cannot_be_written_down_is_recorded_as_a_failure() -> None:
    found = worked(bench(), group(Talkative()))
    assert {record.error for record in found.values()} == {"TypeError: Object of type Tensor is not JSON serializable"}
