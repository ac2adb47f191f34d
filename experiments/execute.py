"""One batch of edits: encode, edit (metered), decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..cases.base import Case
from ..editors.base import Edit, Editor, KeyedNoise, Request
from ..models.base import Model
from ..models.fitting import fitting
from ..models.pictures import latent_masks
from ..ode import Tick, TimeGrid
from ..solvers.base import Solver
from .attended import Attended, Trace
from .memory import peak_bytes, reset_peak
from .meter import metered, settle
from .names import check_mask


@dataclass(frozen=True)
class Cost:
    """What one batch cost. `calls` and `rows` at the network for the whole batch of `cases`; `seconds` of `editor.edit` and
    `network_seconds` of it inside the network (wall clock); `peak_bytes` on the GPU, without one of the whole process (None
    where the system does not say)."""

    cases: int
    calls: int
    rows: int
    seconds: float
    network_seconds: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Walked:
    """What an editor made of a batch: edited latents (B, ...), finite or not, with the sources' latents, the cost, and what
    would have taken less memory."""

    edit: Edit
    source_latents: Tensor
    cost: Cost
    smaller: Sequence[str]

    @property
    def finite(self) -> Sequence[bool]:
        """Whether each case came out finite."""
        found: list[bool] = torch.isfinite(self.edit.latent).flatten(1).all(1).tolist()
        return found


@dataclass(frozen=True)
class Outcome:
    """Edited pictures (B, 3, H, W) in [0, 1] with their latents, the sources' latents, what the editor showed, and the cost."""

    pictures: Tensor
    latents: Tensor
    source_latents: Tensor
    edit: Edit
    cost: Cost


@torch.inference_mode()
def encode(model: Model[Any], cases: Sequence[Case]) -> Tensor:
    """The latents of the cases' pictures (all of one shape), on the model's device.
    Raises OutOfMemoryError if the GPU's memory does not suffice, ValueError for sizes that do not suit the model."""
    pictures = torch.stack([case.picture for case in cases])
    return fitting(lambda: model.encode(pictures), model.setup, _smaller(model, cases))


@torch.inference_mode()
def edit_cases(
    model: Model[Any],
    editor: Editor,
    solver: Solver[Any],
    steps: int,
    cases: Sequence[Case],
    seed: int,
    *,
    source: Tensor | None = None,
    masks: Tensor | None = None,
    keep_path: bool = False,
    watch: Callable[[int], None] | None = None,
) -> Walked:
    """Edit `cases` (pictures of one shape) as one batch, and decode nothing yet. A case's result does not depend on the others
    beside it.

    source: the latents of the cases' pictures where they are known already; otherwise they are encoded here. masks: pixels (B,
    1, H, W) in [0, 1], 1 where the pictures may change, for editors that take them. watch: told the number of network calls
    after each.
    Raises ValueError if options, sizes or prompts do not fit, or the editor gives latents of another shape; OutOfMemoryError if
    the GPU's memory does not suffice."""
    source = encode(model, cases) if source is None else source
    device = source.device
    mask = None if masks is None else _on_latents(masks, editor, cases, source)
    request = Request(source, tuple(case.source for case in cases), tuple(case.target for case in cases), mask)
    noise = KeyedNoise(seed, tuple(case.id for case in cases), source)
    grid = model.grid(steps, source.shape)
    tracked = reset_peak(device)
    smaller = [*_smaller(model, cases), *_elsewhere(model, editor.budget(model, solver, grid, source))]
    with metered(model.network, watch) as meter:
        started = time.perf_counter()
        edit = fitting(lambda: editor.edit(model, request, solver, grid, noise, keep_path=keep_path), model.setup, smaller)
        settle(device)
        seconds = time.perf_counter() - started
    if edit.latent.shape != source.shape:
        raise ValueError(
            f"{type(editor).__name__} must give latents of the shape that it got, {tuple(source.shape)}, "
            f"got {tuple(edit.latent.shape)}"
        )
    peak = peak_bytes(device) if tracked else None
    return Walked(edit, source, Cost(len(cases), meter.calls, meter.rows, seconds, meter.seconds, peak), smaller)


@torch.inference_mode()
def decode(model: Model[Any], walked: Walked) -> Outcome:
    """The pictures of a batch, on the CPU. Raises OutOfMemoryError if the GPU's memory does not suffice."""
    edit = walked.edit
    pictures = fitting(lambda: model.decode(edit.latent).cpu(), model.setup, walked.smaller)
    return Outcome(pictures, edit.latent, walked.source_latents, edit, walked.cost)


def execute(
    model: Model[Any],
    editor: Editor,
    solver: Solver[Any],
    steps: int,
    cases: Sequence[Case],
    seed: int,
    *,
    source: Tensor | None = None,
    masks: Tensor | None = None,
    keep_path: bool = False,
    watch: Callable[[int], None] | None = None,
) -> Outcome:
    """`edit_cases`, then `decode`. Raises as they do, and FloatingPointError if a result is not finite, naming the step that
    it was lost in, or the codec."""
    walked = edit_cases(model, editor, solver, steps, cases, seed, source=source, masks=masks, keep_path=keep_path, watch=watch)
    finite = walked.finite
    if not all(finite):
        i = finite.index(False)
        mask = None if masks is None else masks[i : i + 1]
        lost = walked.source_latents[i : i + 1]
        raise FloatingPointError(why_not_finite(model, editor, solver, steps, cases[i], seed, lost, mask))
    outcome = decode(model, walked)
    check_picture(outcome.pictures)
    return outcome


def check_picture(picture: Tensor) -> None:
    """Raises FloatingPointError for what a codec made of a finite latent and is not finite."""
    if not torch.isfinite(picture).all():
        raise FloatingPointError(
            "the picture decoded from a finite latent is not finite; let the model compute in another dtype, such as bfloat16 "
            "or float32"
        )


def why_not_finite(
    model: Model[Any],
    editor: Editor,
    solver: Solver[Any],
    steps: int,
    case: Case,
    seed: int,
    source: Tensor,
    mask: Tensor | None = None,
) -> str:
    """In which step an edit that came out not finite was lost, in a sentence. The case is walked once more, alone, with every
    evaluation looked at: too dear for the walks that go well. source: its latent (1, ...)."""
    if not torch.isfinite(source).all():
        return "the source's latent is not finite; let the model compute in another dtype, such as bfloat16 or float32"
    trace = Trace()
    edit_cases(Attended(model, trace), editor, solver, steps, [case], seed, source=source, masks=mask)
    if trace.last is None:
        return "the edited latent is not finite; use more steps or a lower guidance scale"
    step = _said(trace.last, model.grid(steps, source.shape))
    return f"the state is not finite from {step} on; use more steps or a lower guidance scale"


def _said(tick: Tick, grid: TimeGrid) -> str:
    """A step, in the order in which it is walked."""
    t0, t1 = tick.t0, tick.t1
    if t1 < t0:
        return f"step {1 + sum(t > t0 for t in grid.times)} of {grid.steps}"
    return f"step {1 + sum(t < t0 for t in grid.times)} of {grid.steps} of the inversion"


def _smaller(model: Model[Any], cases: Sequence[Case]) -> list[str]:
    """What would take less memory than these cases at once."""
    return ["a smaller --batch"] * (len(cases) > 1) + ["a smaller --side"] * (model.side == 0)


def _elsewhere(model: Model[Any], budget: str) -> list[str]:
    """Where features may be kept instead, if an edit keeps any on the device."""
    on_host = model.setup is not None and model.setup.features == "host"
    return ["--features host"] if budget and not on_host else []


def _on_latents(masks: Tensor, editor: Editor, cases: Sequence[Case], latents: Tensor) -> Tensor:
    check_mask(editor)
    if tuple(masks.shape[2:]) != cases[0].shape[1:]:
        raise ValueError(f"a mask has the size of its picture; got {tuple(masks.shape[2:])} for {cases[0].shape[1:]} pixels")
    return latent_masks(masks, latents)
