"""When a word matters: how much worse the velocity is predicted at each time if one word of the caption is wrong."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

import torch
from diffusers import FluxPipeline
from torch import Tensor

from .attributes import KINDS, VALUES, Scene
from .counterfactual import EditCase, Split, edit_case
from .generation import velocity_of
from .network import pack
from .render import render
from .shares import mean

TIMES: Final = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)


@dataclass(frozen=True)
class Cost:
    """At time `t`: the `loss` (mean squared error of the velocity, guidance 1) with the right caption, and what a wrong word
    for each attribute adds to it, each a mean over `n` pictures with the half width of its 95 % interval."""

    t: float
    n: int
    loss: tuple[float, float]
    added: dict[str, tuple[float, float]]


@torch.no_grad()
def word_costs(pipeline: FluxPipeline, number: int, split: Split = "test", batch: int = 64) -> list[Cost]:
    """The costs at ten times over the first `number` cases of a split, one noise each for all times and captions."""
    losses: dict[str, list[Tensor]] = {}
    cases = [edit_case(split, index) for index in range(number)]
    generator = torch.Generator().manual_seed(0)
    for start in range(0, number, batch):
        some = cases[start : start + batch]
        pictures = render([case.source for case in some], [case.nuisance for case in some], pipeline.device)
        clean = pack(pipeline.vae.latents(pictures * 2.0 - 1.0) * pipeline.vae.config.scaling_factor)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        captions = {"": [case.source_caption for case in some]}
        captions |= {kind: [_misnamed(case, kind).caption() for case in some] for kind in KINDS}
        for kind, words in captions.items():
            losses.setdefault(kind, []).append(_losses(pipeline, clean, noise, words))
    found = {kind: torch.cat(parts, dim=1) for kind, parts in losses.items()}  # each (times, number)
    return [
        Cost(t, number, mean(found[""][k]), {kind: mean(found[kind][k] - found[""][k]) for kind in KINDS})
        for k, t in enumerate(TIMES)
    ]


def _misnamed(case: EditCase, kind: str) -> Scene:
    """The case's source with another word for one attribute, one that makes a scene."""
    scene = case.source
    taken = {scene.colour, scene.background} if kind in ("colour", "background") else {getattr(scene, kind)}
    words = [word for word in VALUES[kind] if word not in taken]
    return replace(scene, **{kind: random.Random(f"{kind} {case.seed}").choice(words)})


def _losses(pipeline: FluxPipeline, clean: Tensor, noise: Tensor, captions: list[str]) -> Tensor:
    """The loss of each picture at each time, (times, B)."""
    velocity = velocity_of(pipeline, captions, guidance=1.0)
    found = [velocity(t, (1.0 - t) * clean + t * noise) - (noise - clean) for t in TIMES]
    return torch.stack([one.square().mean(dim=(1, 2)).cpu() for one in found])
