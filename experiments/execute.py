"""One batch of edits, metered: encode, edit, decode."""

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
from ..solvers.base import Solver
from .memory import peak_bytes, reset_peak
from .meter import metered
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
class Outcome:
    """Edited pictures (B, 3, H, W) in [0, 1] with their latents, the sources' latents, what the editor showed, and the cost."""

    pictures: Tensor
    latents: Tensor
    source_latents: Tensor
    edit: Edit
    cost: Cost


@torch.inference_mode()
def encode(model: Model[Any], cases: Sequence[Case]) -> Tensor:
    """The latents of the cases' pictures (all of one shape), on the model's device."""
    pictures = torch.stack([case.picture for case in cases])
    return fitting(lambda: model.encode(pictures), model.setup, _smaller(model, cases))


@torch.inference_mode()
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
    """Edit `cases` (pictures of one shape) as one batch. A case's result does not depend on the others beside it.

    source: the latents of the cases' pictures where they are known already; otherwise they are encoded here. masks: pixels (B,
    1, H, W) in [0, 1], 1 where the pictures may change, for editors that take them. watch: told the number of network calls
    after each.
    Raises FloatingPointError if a result is not finite, ValueError if options, sizes or prompts do not fit, or the GPU's memory
    does not suffice."""
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
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    if not torch.isfinite(edit.latent).all():
        raise FloatingPointError("the edited latent is not finite; use more steps or a lower guidance scale")
    peak = peak_bytes(device) if tracked else None
    cost = Cost(len(cases), meter.calls, meter.rows, seconds, meter.seconds, peak)
    pictures = fitting(lambda: model.decode(edit.latent).cpu(), model.setup, smaller)
    return Outcome(pictures, edit.latent, source, edit, cost)


def _smaller(model: Model[Any], cases: Sequence[Case]) -> list[str]:
    """What would take less memory than these cases at once."""
    return ["a smaller --batch"] * (len(cases) > 1) + ["a smaller --side"] * (model.side == 0)


def _elsewhere(model: Model[Any], budget: str) -> list[str]:
    """Where features may be kept instead, if an edit keeps any on the device."""
    on_host = model.setup is not None and model.setup.features == "host"
    return ["--features host"] if budget and not on_host else []


def _on_latents(masks: Tensor, editor: Editor, cases: Sequence[Case], latents: Tensor) -> Tensor:
    check_mask(editor)
    if masks.shape[2:] != cases[0].picture.shape[1:]:
        raise ValueError(
            f"a mask has the size of its picture; got {tuple(masks.shape[2:])} for {tuple(cases[0].picture.shape[1:])} pixels"
        )
    return latent_masks(masks, latents)
