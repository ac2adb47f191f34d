"""Figures of codec and judge on the test split: `python -m fe.scenes.evaluate`. Edits are measured by `fe compare`."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .attributes import KINDS
from .codec import PatchCodec
from .counterfactual import Split, edit_case
from .judge import JUDGE, Judge
from .network import WEIGHTS
from .render import render


@dataclass(frozen=True)
class Share:
    """How many of `n` were right, with the 95 % interval of Wilson (1927)."""

    right: int
    n: int

    @property
    def share(self) -> float:
        """right / n."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the share."""
        z, p, n = 1.959964, self.share, self.n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return middle - half, middle + half

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:7.2%} of {self.n} ({low:.2%} to {high:.2%})"


@dataclass(frozen=True)
class Figures:
    """Codec and judge on drawn pictures. PSNR in dB, mean and half width of its 95 % interval over pictures."""

    pictures: int
    psnr: float
    psnr_half_width: float
    drawn: dict[str, Share]
    round_trip: dict[str, Share]


def split_pictures(count: int, split: Split = "test") -> tuple[Tensor, Tensor]:
    """The source pictures of the first `count` cases of a split, (count, 3, 64, 64), and their attribute indices (count, 6)."""
    cases = [edit_case(split, index) for index in range(count)]
    pictures = render([case.source for case in cases], [case.nuisance for case in cases])
    return pictures, torch.tensor([case.source.indices() for case in cases])


def codec_psnr(codec: PatchCodec, pictures: Tensor) -> Tensor:
    """PSNR (B,) in dB of the codec's round trip of pictures (B, 3, H, W) in [0, 1]."""
    error = (round_trip(codec, pictures) - pictures).square().mean(dim=(1, 2, 3))
    return -10.0 * error.log10()


@torch.no_grad()
def round_trip(codec: PatchCodec, pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] encoded and decoded, cut to [0, 1]."""
    out: Tensor = (codec(pictures * 2.0 - 1.0) + 1.0) / 2.0
    return out.clamp(0.0, 1.0)


def accuracy(judge: Judge, pictures: Tensor, truth: Tensor) -> dict[str, Share]:
    """How often the judge reads each attribute right."""
    right = judge.indices(pictures) == truth
    return {kind: Share(int(right[:, k].sum()), len(truth)) for k, kind in enumerate(KINDS)}


def evaluate(codec: PatchCodec, judge: Judge, count: int) -> Figures:
    """All figures on the first `count` test cases."""
    pictures, truth = split_pictures(count)
    psnr = codec_psnr(codec, pictures)
    return Figures(
        pictures=count,
        psnr=float(psnr.mean()),
        psnr_half_width=1.959964 * float(psnr.std()) / math.sqrt(count),
        drawn=accuracy(judge, pictures, truth),
        round_trip=accuracy(judge, round_trip(codec, pictures), truth),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fe.scenes.evaluate", description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000, help="test pictures (default 2000)")
    parser.add_argument("--pipeline", type=Path, default=WEIGHTS, help="folder of the pipeline (default: the package's own)")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="folder of the judge (default: the package's own)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.pictures < 2:
        parser.error("--pictures must be at least 2")
    try:
        codec, judge = PatchCodec.from_pretrained(options.pipeline / "vae"), Judge.load(options.judge)
    except OSError as error:
        parser.error(str(error))
    figures = evaluate(codec, judge, options.pictures)
    if options.json:
        print(json.dumps(asdict(figures), indent=2))
        return 0
    print(f"codec PSNR {figures.psnr:.2f} +- {figures.psnr_half_width:.2f} dB over {figures.pictures} test pictures")
    for title, shares in (("judge on drawn pictures", figures.drawn), ("judge on round trips", figures.round_trip)):
        print(title)
        for kind, share in shares.items():
            print(f"  {kind:10} {share}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
