"""Any text-to-image pipeline of diffusers with a flow-matching scheduler as a velocity field, by running its own `__call__` for
one step at a time. What a pipeline hides from its scheduler (signs, times, packing, guidance) stays its own business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from ..attention_hooks.base import Point
from ..ode import TimeGrid
from .base import Loader, Model, Setup, check_rows, per_row
from .driven_codec import encode, round_trip
from .driven_kind import Size, kind_of, network_of, tokenizers
from .driven_loading import load_any
from .driven_run import Seen, Texts, evaluate, finish, read, schedule
from .loading import first_line
from .pictures import check_pictures, codec_of, usual_side
from .pipelines import pipeline_parts
from .preparing import finished
from .prompts import check_asked, check_tokens

MIDDLE: Final = 0.5
"""The time of the evaluations that only look at how a pipeline goes about it."""


@dataclass(frozen=True)
class Part:
    """Prompts at one guidance, with what the pipeline's encoders made of them, all in one call."""

    prompts: tuple[str, ...]
    guidance: float
    texts: Texts


@dataclass(frozen=True)
class DrivenCondition:
    """Parts one after the other, a row for each of their prompts. Every part takes pipeline calls of its own."""

    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.prompts) for part in self.parts)

    def joined(self, other: Self) -> Self:
        """The parts of this condition followed by those of `other`."""
        return type(self)(self.parts + other.parts)


class DrivenModel(Model[DrivenCondition]):
    """`pipeline` as it is, wherever its parts are. Latents are (B, C, h, w): those of its loop, before they are packed.

    Guidance is `guidance_scale` where the network reads it as a number (FLUX.1-dev), `true_cfg_scale` with the negative
    prompt " " where the pipeline has that (Qwen-Image, FLUX.1-schnell), and `guidance_scale` elsewhere; 1 is always none,
    also where the pipeline counts from 0 (what Z-Image calls 4 is 5 here). A pipeline's own ways stay, such as Qwen-Image's
    and Lumina2's rescaling of a guided velocity, or the time that it rounds in bfloat16.

    Every condition that was joined takes a pipeline call of its own, and so does every distinct time among the rows; there
    are no attention points. Building it evaluates the network up to four times, on a picture of a few tokens.
    Raises ValueError (one sentence) for a pipeline that cannot be driven, or whose latents are not understood.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.kind = kind_of(pipeline)
        self.network: nn.Module = network_of(pipeline)
        self.dtype: torch.dtype = network_of(pipeline).dtype
        with self._explained():
            self._small: Size = (2 * self.multiple, 3 * self.multiple)
            self._examine()
        if pipeline.components.get("vae") is not None:
            self._check_codec()

    def parts(self) -> Mapping[str, nn.Module | str]:
        return pipeline_parts(self.pipeline)

    @property
    def multiple(self) -> int:
        return self.kind.multiple

    @property
    def packing(self) -> int:
        return self._packing

    @property
    def usual_side(self) -> int:
        return usual_side(self.pipeline, network_of(self.pipeline))

    def encode(self, pictures: Tensor) -> Tensor:
        codec_of(self.pipeline)
        check_pictures(pictures, self.multiple)
        return encode(self.pipeline, pictures)

    def decode(self, latents: Tensor) -> Tensor:
        """By the pipeline's own code, picture by picture."""
        dtype = codec_of(self.pipeline).dtype
        blank, pictures = _cast(self._blank, dtype), []
        for row in torch.split(latents, 1):
            asked = self._asked(("",), 1.0, row.to(dtype))
            pictures.append(finish(self.pipeline, asked, blank).float())
        return torch.cat(pictures).clamp(0.0, 1.0)

    def condition(self, prompts: Sequence[str], guidance: float) -> DrivenCondition:
        """One row for each prompt, all at `guidance`. The prompts are encoded together, as the pipeline encodes a list.
        Raises ValueError for no prompts, a prompt that cannot be read, or a guidance that is not finite."""
        check_asked(prompts, guidance)
        self.dtype = network_of(self.pipeline).dtype  # it may have been moved to another since
        readers = tokenizers(self.pipeline)
        if readers:
            check_tokens(max(readers, key=lambda reader: int(reader.model_max_length)), prompts, self.kind.longest)
        return DrivenCondition((self._encoded(tuple(prompts), guidance),))

    def velocity(self, t: float | Tensor, x: Tensor, condition: DrivenCondition) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self._channels:
            raise ValueError(f"latents are (B, {self._channels}, h, w), got {tuple(x.shape)}")
        check_rows(condition, x)
        counts = [len(part.prompts) for part in condition.parts]
        rows = zip(condition.parts, torch.split(per_row(t, x), counts), torch.split(x, counts), strict=True)
        return torch.cat([self._evaluate(part, times, states) for part, times, states in rows])

    def calls(self, condition: DrivenCondition) -> Sequence[Sequence[int]]:
        """As counted when the model was built, for rows at one time. (Rows of one condition at several times cost all of them
        for each time.)"""
        made: list[list[int]] = []
        start = 0
        for part in condition.parts:
            rows = list(range(start, start := start + len(part.prompts)))
            made += [rows * copies for copies in self._copies[part.guidance > 1.0]]
        return made

    def grid(self, steps: int, latent_shape: Sequence[int]) -> TimeGrid:
        """The noise levels that the pipeline itself would use for latents of that shape.
        Raises ValueError if `steps` is under 1, or if they do not fall strictly from 1 at most to 0."""
        if steps < 1:
            raise ValueError(f"a time grid needs at least 1 step, got {steps}")
        latents = torch.zeros(1, *latent_shape[1:], device=self.pipeline._execution_device)
        sigmas = schedule(self.pipeline, self._asked(("",), 1.0, latents, steps), self._blank)
        try:
            return TimeGrid(sigmas)
        except ValueError as fault:
            raise ValueError(f"the scheduler of {self._name} gives no grid of {steps} steps: {fault}") from fault

    def points(self) -> Mapping[Point, nn.Module]:
        """None: a pipeline's own code tells nothing of the inside of its network."""
        return {}

    @property
    def _name(self) -> str:
        return type(self.pipeline).__name__

    def _asked(self, prompts: Sequence[str], guidance: float, latents: Tensor, steps: int = 1) -> dict[str, Any]:
        size = (latents.shape[-2] * self._scale, latents.shape[-1] * self._scale)
        return self.kind.arguments(prompts, guidance, size, steps, self.kind.given(latents))

    def _encoded(self, prompts: tuple[str, ...], guidance: float) -> Part:
        height, width = (side // self._scale for side in self._small)
        latents = torch.zeros(
            len(prompts), self._channels, height, width, dtype=self.dtype, device=self.pipeline._execution_device
        )
        return Part(prompts, guidance, read(self.pipeline, self._asked(prompts, guidance, latents)))

    def _evaluate(self, part: Part, times: Tensor, x: Tensor) -> Tensor:
        """The velocity of the rows of one part, by one call for each distinct time."""
        velocity = torch.empty_like(x)
        for sigma in torch.unique(times).tolist():
            asked = self._asked(part.prompts, part.guidance, x.to(self.dtype))
            found = evaluate(self.pipeline, asked, part.texts, sigma).velocity
            chosen = times == sigma
            velocity[chosen] = self._unpacked(found, x.shape)[chosen].to(x.dtype)
        return velocity

    def _unpacked(self, state: Tensor, shape: Sequence[int]) -> Tensor:
        return self.kind.latents(state, (shape[-2] * self._scale, shape[-1] * self._scale))

    def _examine(self) -> None:
        """Find out how many pixels a latent has, and what guidance costs, on a small picture with an empty prompt; and make
        sure that the latents that are given are the ones that the pipeline's loop holds."""
        seen, copies, texts = self._tried(1.0, None)
        if sum(copies) > 1 and not self.kind.embedded:
            counted, self.kind = self.kind, replace(self.kind, unguided=0.0)
            fewer = self._tried(1.0, None)
            if sum(fewer[1]) < sum(copies):
                seen, copies, texts = fewer
            else:
                self.kind = counted
        latents = self.kind.latents(seen.state, self._small)
        self._channels, self._scale = latents.shape[1], self._small[0] // latents.shape[2]
        if latents.ndim != 4 or tuple(side * self._scale for side in latents.shape[2:]) != self._small:
            height, width = self._small
            raise ValueError(f"of a picture of {width}x{height} pixels it makes latents {tuple(latents.shape)}")
        self._packing = self.multiple // self._scale if seen.state.ndim == 3 else 1
        given = self.kind.given(latents.to(self.dtype))
        again = evaluate(self.pipeline, self.kind.arguments([""], 1.0, self._small, 1, given), texts, MIDDLE)
        if not (_close(again.state, seen.state) and _close(again.velocity, seen.velocity)):
            raise ValueError("it does not start from the latents that it is given")
        self._blank = texts
        self._copies = {False: copies, True: self._tried(2.0, given)[1]}

    def _tried(self, guidance: float, given: Tensor | None) -> tuple[Seen, list[int], Texts]:
        """One evaluation, the rows of each network call that it made, and its texts."""
        asked = self.kind.arguments([""], guidance, self._small, 1, given)
        asked["generator"] = torch.Generator().manual_seed(0)  # nobody else's random numbers
        texts = read(self.pipeline, asked)
        if not texts:
            raise ValueError("it does not read its prompts by encode_prompt")
        with _counted(self.network) as rows:
            seen = evaluate(self.pipeline, asked, texts, MIDDLE)
        return seen, rows, texts

    def _check_codec(self) -> None:
        """Raise ValueError unless the pipeline decodes our latents to what the codec itself makes of the picture."""
        picture = torch.rand(1, 3, *self._small, generator=torch.Generator().manual_seed(0))
        with self._explained():
            ours, own = self.decode(self.encode(picture)), round_trip(self.pipeline, picture)
        apart = (ours - own).abs().max().item()
        if not apart <= max(1e-3, 8.0 * torch.finfo(self.pipeline.vae.dtype).eps):
            raise ValueError(
                f"the latents of {self._name} are not understood: it decodes them {apart:.2g} away from its codec's own "
                "round trip (pictures are from 0 to 1)"
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say that the pipeline cannot be driven if its code fails inside."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as fault:  # other people's code fails in every way there is
            raise ValueError(f"{self._name} cannot be driven: {first_line(fault)}") from fault


@dataclass(frozen=True)
class DiffusersLoader(Loader):
    """Any text-to-image pipeline of diffusers with a flow-matching scheduler, from a folder or a hub id, driven through its own
    code: slower than an adapter of its own, and without attention features."""

    def load(self, source: str | None, setup: Setup) -> DrivenModel:
        if source is None:
            raise ValueError("this loader needs a folder or hub id: write diffusers:FOLDER or diffusers:OWNER/NAME")
        if setup.weights == "random":
            raise ValueError("random weights fill the architectures of flux and sd3 models; this loader needs trained ones")
        return finished(self.wrap(load_any(source, setup)), setup)

    def wrap(self, pipeline: Any) -> DrivenModel:
        return DrivenModel(pipeline)


@contextmanager
def _counted(network: nn.Module) -> Iterator[list[int]]:
    """The batch rows of every forward call of `network` inside."""
    rows: list[int] = []

    def count(module: nn.Module, args: tuple[object, ...], given: dict[str, object]) -> None:
        rows.append(next(len(value) for value in (*args, *given.values()) if isinstance(value, Tensor) and value.ndim > 0))

    handle = network.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether two results are the same but for the rounding of the network's dtype."""
    return a.shape == b.shape and bool((a.float() - b.float()).abs().max() <= 0.02 * b.float().abs().max())


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Recorded texts with their numbers in another dtype: some pipelines give the state the dtype of the texts."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(_cast(entry, dtype) for entry in value)
    return value
