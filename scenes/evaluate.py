"""Figures of codec, judge and pictures from captions on the test split: `python -m fe.scenes.evaluate`.

Edits and reconstructions are measured by `fe compare`.
"""

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

from . import captions
from .attributes import KINDS
from .codec import PatchCodec
from .counterfactual import Split, edit_case
from .generation import GUIDANCE
from .judge import JUDGE, Judge
from .network import WEIGHTS, load_pipeline
from .render import render
from .shares import Share
from .words import Cost, word_costs


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
    pictures, truth = (part.to(codec.device) for part in split_pictures(count))
    psnr = codec_psnr(codec, pictures)
    return Figures(
        pictures=count,
        psnr=float(psnr.mean()),
        psnr_half_width=1.959964 * float(psnr.std()) / math.sqrt(count),
        drawn=accuracy(judge, pictures, truth),
        round_trip=accuracy(judge, round_trip(codec, pictures), truth),
    )


def _shares(title: str, shares: dict[str, Share]) -> list[str]:
    return [title, *(f"  {kind:10} {share}" for kind, share in shares.items())]


def _text(figures: Figures, drawn: captions.Drawn | None, flow: captions.Flow | None, costs: list[Cost]) -> str:
    lines = [f"codec PSNR {figures.psnr:.2f} +- {figures.psnr_half_width:.2f} dB over {figures.pictures} test pictures"]
    lines += _shares("judge on drawn pictures", figures.drawn) + _shares("judge on round trips", figures.round_trip)
    if drawn is not None:
        lines += _shares(f"pictures from captions, as asked (guidance {drawn.guidance:g}, 28 Euler steps)", drawn.asked)
        lines += [f"  colours not those of the swapped caption: {drawn.kept_apart}"]
        lines += _shares("  of combinations the training had", drawn.seen)
        lines += _shares("  of combinations held out", drawn.held_out)
    if flow is not None:
        named = {
            "latents, of a spread of 1": flow.latents,
            "pictures, of 255": flow.pictures,
            "path over chord": flow.straightness,
        }
        lines += [f"28 Euler steps against an adaptive solver, {flow.n} captions, guidance {flow.guidance:g}"]
        lines += [f"  {name}: {mean:.4f} +- {half:.4f}" for name, (mean, half) in named.items()]
    if costs:
        lines += [f"loss of the velocity, and what a wrong word adds to it, {costs[0].n} pictures", f"     t {'loss':>8}"]
        lines[-1] += "".join(f"{kind:>12}" for kind in KINDS)
        lines += [
            f"  {one.t:.2f} {one.loss[0]:8.4f}" + "".join(f"{one.added[kind][0]:+12.4f}" for kind in KINDS) for one in costs
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m fe.scenes.evaluate", description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000, help="test pictures (default 2000)")
    parser.add_argument("--captions", type=int, default=600, help="test captions to draw, 0 for none (default 600)")
    parser.add_argument("--flow", type=int, default=0, help="test captions whose flow is followed exactly (default 0)")
    parser.add_argument("--words", type=int, default=0, help="test pictures that are given a wrong word (default 0)")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help=f"guidance of captions (default {GUIDANCE})")
    parser.add_argument("--pipeline", type=Path, default=WEIGHTS, help="folder of the pipeline (default: the package's own)")
    parser.add_argument("--judge", type=Path, default=JUDGE, help="folder of the judge (default: the package's own)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    others = (options.captions, options.flow, options.words)
    if options.pictures < 2 or min(others) < 0 or 1 in others:
        parser.error("--pictures must be at least 2; --captions, --flow and --words 0 or at least 2")
    try:
        pipeline, judge = load_pipeline(options.pipeline), Judge.load(options.judge)
    except OSError as error:
        parser.error(str(error))
    pipeline.to(options.device)
    judge = judge.to(options.device)
    figures = evaluate(pipeline.vae, judge, options.pictures)
    drawn = captions.examine(pipeline, judge, options.captions, guidance=options.guidance) if options.captions else None
    flow = captions.flow(pipeline, options.flow, guidance=options.guidance) if options.flow else None
    costs = word_costs(pipeline, options.words) if options.words else []
    if options.json:
        parts = {"codec and judge": figures, "captions": drawn, "flow": flow}
        told: dict[str, object] = {name: asdict(part) for name, part in parts.items() if part is not None}
        print(json.dumps(told | {"words": [asdict(cost) for cost in costs]}, indent=2))
    else:
        print(_text(figures, drawn, flow, costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
