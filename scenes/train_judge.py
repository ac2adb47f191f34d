"""Train the judge: `python -m fe.scenes.train_judge`, some ten minutes on one CPU core.

Its pictures are drawn from seeds of its own. Half of them went through the codec, some of those with noise on the latents,
and all may be blurred, noisy or a little off in brightness, because what it has to read are pictures made by a network.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from .codec import PatchCodec
from .data import draw_batch
from .judge import JUDGE, Judge
from .network import build_codec
from .render import render_indices

JUDGE_SEED: Final = 2_000_000_000


@torch.no_grad()
def augment(pictures: Tensor, codec: PatchCodec, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, 64, 64) in [0, 1] as a network might have made them."""
    count, half = len(pictures), len(pictures) // 2

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator).to(pictures.device)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(pictures.device)

    latents = codec.latents(pictures[:half] * 2.0 - 1.0)
    strength = (uniform(half, 1, 1, 1) * 0.5 - 0.25).clamp(min=0.0)  # none for half of them, up to a quarter
    latents = latents + strength * normal(latents)
    through = (codec.pictures(latents) + 1.0) / 2.0
    pictures = torch.cat((through, pictures[half:]))
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pictures = torch.where(uniform(count, 1, 1, 1) < 0.25, blurred, pictures)
    pictures = pictures + 0.04 * uniform(count, 1, 1, 1) * normal(pictures)
    pictures = pictures + 0.04 * (uniform(count, 3, 1, 1) - 0.5)
    return pictures.clamp(0.0, 1.0)


def train(steps: int, batch: int, device: torch.device, rate: float = 2e-3) -> Judge:
    """A judge after so many steps with AdamW and a cosine schedule."""
    torch.manual_seed(JUDGE_SEED)
    judge, codec = Judge().to(device), build_codec().to(device)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.05)
    said = time.monotonic()
    for step in range(steps):
        attributes, nuisances = (part.to(device) for part in draw_batch(batch, JUDGE_SEED + step, held_out=True))
        generator = torch.Generator().manual_seed(JUDGE_SEED + step)
        pictures = augment(render_indices(attributes, nuisances), codec, generator)
        logits = judge(pictures)
        loss = torch.stack([functional.cross_entropy(one, attributes[:, k]) for k, one in enumerate(logits)]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if time.monotonic() - said > 10.0 or step + 1 == steps:
            said = time.monotonic()
            print(f"step {step + 1}/{steps} loss {loss.item():.4f}", file=sys.stderr, flush=True)
    return judge.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fe.scenes.train_judge", description="Train the judge.")
    parser.add_argument("--out", type=Path, default=JUDGE, help="folder for the weights (default: the package's own)")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    train(options.steps, options.batch, torch.device(options.device)).save(options.out)
    print(f"judge written to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
