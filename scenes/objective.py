"""What the network learns: the velocity of captioned pictures, then guidance distilled from its own averaged copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from .codec import PatchCodec
from .data import TRAIN_SEED, draw_attributes, draw_nuisances, scene_of
from .network import Network, pack, token_ids
from .render import render_indices
from .text import MAX_TOKENS, clip_tokenizer, t5_tokenizer

DROPPED: Final = 0.1
"""Share of captions replaced by the empty one, so that the network also knows the velocity without a caption."""
TIMES: Final = (0.7, 1.2)
"""Mean and spread of the normal number whose sigmoid is the time: it is near the noise end that captions decide, the shape
between 0.7 and 0.95 (`words`, and docs/scenes.md)."""
UNIFORM_TIMES: Final = 0.1
"""Share of times drawn evenly, so that both ends are visited."""
GUIDANCE: Final = (1.0, 6.0)
SEED_STEPS: Final = 10_000_000
"""Seeds of pictures that one seed of a training has to itself, one a step."""
PLAIN: Final = 0.25
"""Share of rows that keep the data's own target at guidance 1 during the distillation, so that guidance 1 stays faithful."""

_CLIP: Final = clip_tokenizer()
_T5: Final = t5_tokenizer()


@dataclass(frozen=True)
class Batch:
    """One batch: clean packed latents and noise (B, tokens, components), times and guidance (B,), token ids (B, 16)."""

    clean: Tensor
    noise: Tensor
    t: Tensor
    guidance: Tensor
    clip_ids: Tensor
    t5_ids: Tensor

    @property
    def noisy(self) -> Tensor:
        """(1 - t) * clean + t * noise."""
        t = self.t[:, None, None]
        return (1.0 - t) * self.clean + t * self.noise


class Drawer:
    """Makes the batch of a step; everything follows from the step's number and `seed`, and pictures are drawn on the device."""

    def __init__(self, codec: PatchCodec, batch: int, device: torch.device, seed: int = 0) -> None:
        self.codec = codec.to(device)
        self.batch = batch
        self.device = device
        self.first = TRAIN_SEED + seed * SEED_STEPS

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(self.first + step)
        count = self.batch
        attributes, nuisances = draw_attributes(count, generator), draw_nuisances(count, generator)
        dropped = torch.rand(count, generator=generator) < DROPPED
        captions = ["" if gone else scene_of(row).caption() for gone, row in zip(dropped.tolist(), attributes, strict=True)]
        mean, spread = TIMES
        t = torch.sigmoid(mean + spread * torch.randn(count, generator=generator))
        even = torch.rand(count, generator=generator) < UNIFORM_TIMES
        t = torch.where(even, torch.rand(count, generator=generator), t)
        low, high = GUIDANCE
        guidance = low + (high - low) * torch.rand(count, generator=generator)
        pictures = render_indices(attributes.to(self.device), nuisances.to(self.device))
        clean = pack(self.codec.latents(pictures * 2.0 - 1.0) * self.codec.config.scaling_factor)
        noise = torch.randn(clean.shape, generator=generator)
        clip_ids, t5_ids = token_numbers(captions, self.device)
        return Batch(
            clean=clean,
            noise=noise.to(self.device),
            t=t.to(self.device),
            guidance=guidance.to(self.device),
            clip_ids=clip_ids,
            t5_ids=t5_ids,
        )


def token_numbers(prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
    """What the CLIP and the T5 encoder read, each (B, 16)."""

    def numbers(tokenizer: PreTrainedTokenizerFast) -> Tensor:
        ids: Tensor = tokenizer(
            prompts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids
        return ids.to(device)

    return numbers(_CLIP), numbers(_T5)


class Objective:
    """The loss of a batch: mean squared error of the velocity."""

    def __init__(self, device: torch.device) -> None:
        text_ids, image_ids = token_ids()
        self.places = (text_ids.to(device), image_ids.to(device))
        self.empty = token_numbers([""], device)

    def main(self, network: Network, batch: Batch) -> Tensor:
        """Against the data. The first half of the rows names guidance 1, the rest any: the guidance has no meaning yet, and
        a network that has seen all its values can be used at any of them before the distillation."""
        first = torch.arange(len(batch.t), device=batch.t.device) < len(batch.t) // 2
        guidance = torch.where(first, torch.ones_like(batch.guidance), batch.guidance)
        velocity = network(batch.noisy, batch.t, guidance, *network.embed(batch.clip_ids, batch.t5_ids), *self.places)
        return functional.mse_loss(velocity.float(), batch.noise - batch.clean)

    def distilled(self, network: Network, teacher: Network, batch: Batch) -> Tensor:
        """Against v_u + g (v_c - v_u) of the teacher at guidance 1, and against the data in the first quarter of the rows."""
        plain = int(len(batch.t) * PLAIN)
        target = batch.noise - batch.clean
        target[plain:] = self._guided(teacher, batch, plain)
        guidance = batch.guidance.clone()
        guidance[:plain] = 1.0
        velocity = network(batch.noisy, batch.t, guidance, *network.embed(batch.clip_ids, batch.t5_ids), *self.places)
        return functional.mse_loss(velocity.float(), target)

    @torch.no_grad()
    def _guided(self, teacher: Network, batch: Batch, start: int) -> Tensor:
        """The teacher's guided velocity for the rows from `start` on, both halves in one call."""
        x, t, g = batch.noisy[start:], batch.t[start:], batch.guidance[start:, None, None]
        count = len(t)
        clip_ids = torch.cat((batch.clip_ids[start:], self.empty[0].expand(count, -1)))
        t5_ids = torch.cat((batch.t5_ids[start:], self.empty[1].expand(count, -1)))
        both: Tensor = teacher(
            torch.cat((x, x)),
            torch.cat((t, t)),
            torch.ones(2 * count, device=x.device),
            *teacher.embed(clip_ids, t5_ids),
            *self.places,
        )
        captioned, empty = both.float().tensor_split(2)
        return empty + g * (captioned - empty)
