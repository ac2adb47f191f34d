"""What a pipeline draws when it is asked in words: attributes, swapped colours, and combinations it was never shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

import torch
from diffusers import FluxPipeline
from torch import Tensor

from .attributes import KINDS, Scene
from .counterfactual import Split, edit_case
from .generation import GUIDANCE, decode, draw_latents, follow_flow, noises
from .judge import Judge
from .shares import Share, mean


@dataclass(frozen=True)
class Drawn:
    """Pictures from captions, 28 Euler steps, one noise each.

    `asked`: each attribute as asked. `kept_apart`: of two captions that differ by a swap of the two colours, drawn from one
    noise, how many pictures do not show the other's colours. `seen` and `held_out`: each attribute as asked where
    the training had the combination of shape, object colour and background colour, and where it was held out.
    """

    guidance: float
    asked: dict[str, Share]
    kept_apart: Share
    seen: dict[str, Share]
    held_out: dict[str, Share]


@dataclass(frozen=True)
class Flow:
    """28 Euler steps against an adaptive solver: root mean squared error of latents (whose spread is about 1) and of pictures
    (of 255), path over chord; means over `n` captions with the half widths of their 95 % intervals."""

    n: int
    guidance: float
    latents: tuple[float, float]
    pictures: tuple[float, float]
    straightness: tuple[float, float]


def scenes(split: Split, held_out: bool | None = None) -> Iterator[Scene]:
    """The sources of a split's cases in order; with `held_out`, those whose combination was held out, or was not."""
    sources = (edit_case(split, index).source for index in count())
    return (scene for scene in sources if held_out is None or scene.held_out == held_out)


def examine(pipeline: FluxPipeline, judge: Judge, number: int, split: Split = "test", guidance: float = GUIDANCE) -> Drawn:
    """All figures, each over `number` captions of a split."""

    def asked(held_out: bool | None) -> dict[str, Share]:
        chosen = list(islice(scenes(split, held_out), number))
        right = _read(pipeline, judge, chosen, guidance) == torch.tensor([scene.indices() for scene in chosen])
        return {kind: Share(int(right[:, k].sum()), number) for k, kind in enumerate(KINDS)}

    return Drawn(guidance, asked(None), _apart(pipeline, judge, number, split, guidance), asked(False), asked(True))


def _apart(pipeline: FluxPipeline, judge: Judge, number: int, split: Split, guidance: float) -> Share:
    scene_pairs = islice(scenes(split), number // 2)
    both = [one for scene in scene_pairs for one in (scene, replace(scene, colour=scene.background, background=scene.colour))]
    colours = [KINDS.index("colour"), KINDS.index("background")]
    drawn = _read(pipeline, judge, both, guidance, twice=True)[:, colours]
    other = torch.tensor([scene.indices() for scene in both])[:, colours].flip(1)
    return Share(int((drawn != other).any(dim=1).sum()), len(both))


def _read(pipeline: FluxPipeline, judge: Judge, asked: Sequence[Scene], guidance: float, twice: bool = False) -> Tensor:
    """Attribute indices (B, 6) of the pictures of scenes; `twice`: neighbours share their noise."""
    noise = noises(pipeline, len(asked) // 2).repeat_interleave(2, dim=0) if twice else noises(pipeline, len(asked))
    latents = draw_latents(pipeline, [scene.caption() for scene in asked], noise, guidance)
    return judge.indices(decode(pipeline, latents)).cpu()


def flow(pipeline: FluxPipeline, number: int, split: Split = "test", guidance: float = GUIDANCE, batch: int = 50) -> Flow:
    """How far 28 Euler steps end from where the flow ends, over `number` captions of a split."""
    captions = [scene.caption() for scene in islice(scenes(split), number)]
    noise = noises(pipeline, number)
    latent_errors, picture_errors, straightness = [], [], []
    for start in range(0, number, batch):
        words, begin = captions[start : start + batch], noise[start : start + batch].to(pipeline.device)
        steps, exact = draw_latents(pipeline, words, begin, guidance).cpu(), follow_flow(pipeline, words, begin, guidance)
        latent_errors.append((steps - exact.latents).square().mean(dim=(1, 2)).sqrt())
        difference = decode(pipeline, steps.to(begin.device)) - decode(pipeline, exact.latents.to(begin.device))
        picture_errors.append(255.0 * difference.cpu().square().mean(dim=(1, 2, 3)).sqrt())
        straightness.append(exact.straightness)
    return Flow(number, guidance, *(mean(torch.cat(found)) for found in (latent_errors, picture_errors, straightness)))
