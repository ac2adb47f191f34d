"""Reconstruction error against evaluations, and FireFlow's assumption step by step, as one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]


class Curve(NamedTuple):
    """One line of the figure: (evaluations, RMSE) points; `carried`: the solver's state went along, drawn dashed."""

    label: str
    points: Sequence[Point]
    carried: bool = False


def recon_plot(curves: Sequence[Curve], bound: float, gaps: Mapping[str, Sequence[Point]]) -> Image.Image:
    """The figure as an image.

    bound: the codec's RMSE. gaps: name of a step count to (time, relative gap) points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _errors(left, curves, bound)
    _gaps(right, gaps)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _errors(axes: Axes, curves: Sequence[Curve], bound: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for label, points, carried in curves:
        axes.plot(*zip(*sorted(points), strict=True), "--" if carried else "-", marker="o", markersize=4, label=label)
    axes.axhline(bound, color="grey", linestyle=":", label="codec alone")
    axes.set(xscale="log", yscale="log", xlabel="network evaluations, there and back", ylabel="reconstruction RMSE (0-255)")
    for axis in (axes.xaxis, axes.yaxis):  # plain numbers instead of powers of ten, and enough of them
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_title("Reconstruction error against cost")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")


def _gaps(axes: Axes, gaps: Mapping[str, Sequence[Point]]) -> None:
    for name, points in gaps.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    axes.set(ylim=(0.0, None), xlabel="time (0 image, 1 noise)", ylabel="|v_mid - v_prev| / |v_mid|")
    axes.set_title("FireFlow's assumption, step by step of an inversion")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which="both")
