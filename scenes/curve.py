"""The learning curve: how far a training is, on the development split, written to `curve.csv` and drawn in `curve.png`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from .attributes import KINDS
from .codec import PatchCodec
from .counterfactual import edit_case
from .generation import BATCH, decode, draw_latents, noises
from .judge import Judge
from .network import Network, build_pipeline, pack
from .objective import Objective, token_numbers
from .render import render

BANDS: Final = 4
"""The loss is also given for four equal parts of [0, 1], the first next to the pictures."""
_SEED: Final = 0


@dataclass(frozen=True)
class Figures:
    """`loss`: mean squared error of the velocity over even times, also by band; `shares`: of attributes drawn as asked."""

    loss: float
    bands: tuple[float, ...]
    shares: dict[str, float]


class Examination:
    """The same pictures, noises, times and captions for every look, none of them trained on."""

    def __init__(self, codec: PatchCodec, device: torch.device, pictures: int = 512, captions: int = 96) -> None:
        cases = [edit_case("development", index) for index in range(max(pictures, captions))]
        self.codec = codec
        self.captions = [case.source_caption for case in cases[:captions]]
        self.asked = torch.tensor([case.source.indices() for case in cases[:captions]])
        self.judge = Judge.load(device=device)
        self.objective = Objective(device)
        cases = cases[:pictures]
        drawn = render([case.source for case in cases], [case.nuisance for case in cases], device) * 2.0 - 1.0
        self.clean = pack(codec.latents(drawn) * codec.config.scaling_factor)
        generator = torch.Generator().manual_seed(_SEED)
        self.noise = torch.randn(self.clean.shape, generator=generator).to(device)
        self.t = ((torch.arange(pictures) + 0.5) / pictures)[torch.randperm(pictures, generator=generator)].to(device)
        self.words = token_numbers([case.source_caption for case in cases], device)

    @torch.no_grad()
    def __call__(self, network: Network, explicit: bool) -> Figures:
        """The figures of a network; `explicit` guidance costs a second row, without it the guidance goes into the network."""
        errors = torch.cat([self._errors(network, slice(start, start + BATCH)) for start in range(0, len(self.t), BATCH)])
        band = (self.t * BANDS).long()
        return Figures(
            loss=float(errors.mean()),
            bands=tuple(float(errors[band == b].mean()) for b in range(BANDS)),
            shares=self._shares(network, explicit),
        )

    def _errors(self, network: Network, rows: slice) -> Tensor:
        t, clean, noise = self.t[rows], self.clean[rows], self.noise[rows]
        x = (1.0 - t[:, None, None]) * clean + t[:, None, None] * noise
        words = [numbers[rows] for numbers in self.words]
        velocity = network(x, t, torch.ones_like(t), *network.embed(*words), *self.objective.places)
        return functional.mse_loss(velocity, noise - clean, reduction="none").mean(dim=(1, 2))

    def _shares(self, network: Network, explicit: bool) -> dict[str, float]:
        pipeline = build_pipeline(network, self.codec)
        latents = draw_latents(pipeline, self.captions, noises(pipeline, len(self.captions)), explicit=explicit)
        pictures = decode(pipeline, latents)
        right = (self.judge.indices(pictures).cpu() == self.asked).float().mean(dim=0)
        return dict(zip(KINDS, right.tolist(), strict=True))


def append(path: Path, row: dict[str, float | str]) -> None:
    """Add a row to a table of comma-separated values, with the names first if the file is new, and draw it beside."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    plot(path, path.with_suffix(".png"))


def plot(path: Path, out: Path) -> None:
    """Draw a learning curve: the loss and its bands on the left, attributes as asked on the right, over steps."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    losses, shares = figure.subplots(1, 2)
    for name in ("loss", *(f"loss, band {number}" for number in range(1, BANDS + 1))):
        losses.plot(steps, [float(row[name]) for row in rows], marker=".", label=name, linewidth=2.0 if name == "loss" else 1.0)
    for kind in KINDS:
        shares.plot(steps, [100.0 * float(row[f"{kind} as asked"]) for row in rows], marker=".", label=kind)
    distilled = [int(row["step"]) for row in rows if row["phase"] != "main"]
    for axes, name in ((losses, "squared error of the velocity"), (shares, "as asked, % of captions")):
        axes.set(xlabel="steps", ylabel=name, xlim=(0, None), ylim=(0.0, None))
        if distilled:
            axes.axvspan(distilled[0], steps[-1], color="0.93", label="guidance distilled")
        axes.legend(fontsize="small")
    FigureCanvasAgg(figure).print_figure(out, dpi=120)
