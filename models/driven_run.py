"""One run of a diffusers pipeline's own code under a scheduler of ours: it learns the time that we set, and stops where we
have what we want. Everything that was changed for the run is put back, however it ends."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

Texts = tuple[Any, ...]
"""What a pipeline's `encode_prompt` returned in one run, call by call (guidance may make it encode twice)."""

Call = Callable[..., Any]

_RENEWED: Final = ("_all_hooks", "_offload_device", "_offload_gpu_id")
"""Attributes in which a pipeline keeps its offloading, which it sets up anew at the end of each run."""


class _Enough(Exception):  # noqa: N818  (no error: it ends a run that has given what was wanted)
    pass


class Seen(NamedTuple):
    """What a pipeline's loop held, and the velocity dx/dsigma that it handed to its scheduler, both as it lays them out."""

    state: Tensor
    velocity: Tensor


def read(pipeline: Any, arguments: Mapping[str, Any]) -> Texts:
    """What the pipeline's encoders make of the prompts among its `arguments`."""
    texts: list[Any] = []
    encode = pipeline.encode_prompt

    def encode_prompt(*args: Any, **given: Any) -> Any:
        texts.append(encode(*args, **given))
        return texts[-1]

    def times(scheduler: Any, real: Call, given: Mapping[str, Any]) -> None:
        raise _Enough

    _run(pipeline, arguments, encode_prompt, times)
    return tuple(texts)


def schedule(pipeline: Any, arguments: Mapping[str, Any], texts: Texts) -> tuple[float, ...]:
    """The noise levels that the pipeline has its own scheduler make."""
    levels: list[float] = []

    def times(scheduler: Any, real: Call, given: Mapping[str, Any]) -> None:
        real(**given)
        levels.extend(scheduler.sigmas.tolist())
        raise _Enough

    _run(pipeline, arguments, _replay(texts), times)
    return tuple(levels)


def evaluate(pipeline: Any, arguments: Mapping[str, Any], texts: Texts, sigma: float) -> Seen:
    """One evaluation at noise level `sigma`, with the signs and the guidance of the pipeline already in it."""
    seen: list[Seen] = []

    def times(scheduler: Any, real: Call, given: Mapping[str, Any]) -> None:
        told = _told(scheduler, real, given, sigma)
        _set(scheduler, torch.tensor([told], device=given.get("device")), torch.tensor([sigma, 0.0]))

    def step(given: Mapping[str, Any]) -> None:
        seen.append(Seen(given["sample"], given["model_output"]))
        raise _Enough

    _run(pipeline, arguments, _replay(texts), times, step)
    if not seen:
        raise ValueError("it makes no step with its scheduler")
    return seen[0]


def finish(pipeline: Any, arguments: Mapping[str, Any], texts: Texts) -> Tensor:
    """What the pipeline makes of its `latents` without a single step: pictures (B, 3, H, W)."""

    def times(scheduler: Any, real: Call, given: Mapping[str, Any]) -> None:
        _set(scheduler, torch.empty(0), torch.zeros(1))

    pictures: Tensor = _run(pipeline, arguments, _replay(texts), times)[0]
    return pictures


def _run(pipeline: Any, arguments: Mapping[str, Any], encode_prompt: Call, times: Call, step: Call | None = None) -> Any:
    """Call the pipeline. `times`: called in place of its scheduler's `set_timesteps`, with a copy of the scheduler, its own
    method and the arguments; `step`: in place of its `step`, with the arguments."""
    scheduler = copy.deepcopy(pipeline.scheduler)
    real_times, real_step = scheduler.set_timesteps, scheduler.step

    # Pipelines look at the names of both methods' arguments, so these must seem to be the scheduler's own.
    @functools.wraps(real_times)
    def set_timesteps(*args: Any, **given: Any) -> None:
        times(scheduler, real_times, inspect.signature(real_times).bind(*args, **given).arguments)

    @functools.wraps(real_step)
    def take_step(*args: Any, **given: Any) -> None:
        assert step is not None  # a run without steps has no times to make them at
        step(inspect.signature(real_step).bind(*args, **given).arguments)

    scheduler.set_timesteps, scheduler.step = set_timesteps, take_step
    shadows = {"scheduler": scheduler, "encode_prompt": encode_prompt, "_progress_bar_config": {"disable": True}}
    with _shadowed(pipeline, shadows), suppress(_Enough):
        return pipeline(**arguments, return_dict=False)


@contextmanager
def _shadowed(pipeline: Any, shadows: Mapping[str, Any]) -> Iterator[None]:
    """Inside, `pipeline` has these attributes; afterwards it has all those that it had before, and no others."""
    own = vars(pipeline)
    before = dict(own)
    own.update(shadows)
    try:
        yield
    finally:
        renewed = {name: own[name] for name in _RENEWED if name in own}
        own.clear()
        own.update({**before, **renewed})


def _replay(texts: Texts) -> Call:
    """An `encode_prompt` that gives what was recorded, call by call."""
    rest = iter(texts)

    def encode_prompt(*args: Any, **given: Any) -> Any:
        for text in rest:
            return text
        raise ValueError("it encodes its prompts after it has set its times")

    return encode_prompt


def _set(scheduler: Any, times: Tensor, levels: Tensor) -> None:
    scheduler.timesteps, scheduler.sigmas, scheduler.num_inference_steps = times, levels, len(times)


def _told(scheduler: Any, real: Call, given: Mapping[str, Any], sigma: float) -> float:
    """The time that the network is told at noise level `sigma`: sigma in the units of training, unless the pipeline names
    its own times beside the levels (CogView4): then the one that belongs to the level, between the trained times."""
    trained = int(scheduler.config.num_train_timesteps)
    if given.get("timesteps") is None:
        return sigma * trained
    times = np.arange(trained, 0, -1, dtype=np.float32)
    levels = {"sigmas": times / trained} if given.get("sigmas") is not None else {}
    real(**{**given, "num_inference_steps": None, "device": "cpu", "timesteps": times, **levels})
    known = scheduler.sigmas.flip(0).tolist()  # from 0, behind the last step, up to the level of the highest time
    return float(np.interp(sigma, known, [0.0, *times[::-1].tolist()]))
