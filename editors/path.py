"""Editing as one direct path: the noise-free states between the source and the result (Kulikov et al. 2024, arXiv 2412.08629).

Editing by inversion walks up from the source to noise, Z_src, and down to the result, Z_tar. At each knot
Z(t) = Z_src(0) + Z_tar(t) - Z_src(t) is a picture without noise; it starts as the source, since both walks meet in the noise,
and ends as the result, since Z_src(0) is the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from ..ode import Field, Tick, TimeGrid
from ..solvers.base import Solver, Step, integrate, walk
from .base import Edit


def followed(start: Tensor, steps: Iterable[Step[Any]], keep: bool) -> tuple[Step[Any], list[Tensor]]:
    """Exhaust a walk from `start`: its last step (a step that changed nothing if it has none), and with `keep` every state
    from `start` on, otherwise none but `start`."""
    last, states = Step[Any](start, None), [start]
    for last in steps:
        if keep:
            states.append(last.x)
    return last, states


def walk_inside(
    solver: Solver[Any],
    field: Field,
    x: Tensor,
    grid: TimeGrid,
    mask: Tensor | None,
    outside: Callable[[float], Tensor],
    state: Any = None,
) -> Iterator[Step[Any]]:
    """`solvers.base.walk`, but after every step what lies outside `mask` is put to `outside` of the knot that was reached:
    blended latent diffusion (Avrahami et al. 2023, arXiv 2206.02779). Where the mask (B, 1, h, w) is between 0 and 1 the two
    are mixed. Without a mask it is `walk` itself. What the solver carries is left as it is.
    """
    if mask is None:
        yield from walk(solver, field, x, grid, state)
        return
    for t0, t1 in grid.intervals():
        x, state = integrate(solver, field, x, TimeGrid((t0, t1)), state)
        x = mask * x + (1.0 - mask) * outside(t1)  # not lerp, whose value at either end may be off by rounding
        yield Step(x, state)


class Inverted(NamedTuple):
    """A source that was walked to noise: the last step of that walk, and the states by the time of their knot, from the image
    on."""

    last: Step[Any]
    at: Mapping[float, Tensor]


def invert(solver: Solver[Any], field: Field, latent: Tensor, down: TimeGrid) -> Inverted:
    """Walk `latent` up the knots of the falling grid `down`."""
    rising = down.reversed()
    last, states = followed(latent, walk(solver, field, latent, rising), keep=True)
    return Inverted(last, dict(zip(rising.times, states, strict=True)))


def regenerate(
    solver: Solver[Any],
    field: Field,
    inverted: Inverted,
    down: TimeGrid,
    mask: Tensor | None,
    keep_path: bool,
    state: Any = None,
) -> Edit:
    """Walk from the noise that an inversion ended at, down the knots that it came up by: outside `mask` back to its states,
    knot by knot. The path is `noise_free`."""
    x = inverted.last.x
    result, back = followed(x, walk_inside(solver, field, x, down, mask, inverted.at.__getitem__, state), keep_path)
    return Edit(result.x, noise_free(tuple(inverted.at.values()), back) if keep_path else ())


def noise_free(up: Sequence[Tensor], down: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The direct path Z(t) at the knots, from the noise end to the image end.

    up: Z_src at the knots (two or more) from the image to the noise. down: Z_tar at the same knots, from the noise back.
    Raises ValueError if they have different numbers of knots.
    """
    if len(up) != len(down):
        raise ValueError(f"the two walks need the same knots, got {len(up)} up and {len(down)} down")
    between = [up[0] + target - source for target, source in zip(down[1:-1], up[-2:0:-1], strict=True)]
    return (up[0], *between, down[-1])  # the ends without rounding


def direct_path(solver: Solver[Any], field: Field, up: Sequence[Tensor], grid: TimeGrid) -> tuple[Tensor, ...]:
    """Walk the direct path itself, dZ/dt = v(Z_tar | target) - v(Z_src | source), with the source's increments as stored.

    field: the velocity under the target. up: Z_src at the knots of `grid`, from the image to the noise. grid: falling.
    Returns Z at the knots, from the source to the result; the same states, up to rounding, as editing by inversion.
    Raises ValueError if `up` does not have one state a knot.
    """
    if len(up) != len(grid.times):
        raise ValueError(f"one stored state a knot is needed, got {len(up)} for {len(grid.times)} knots")
    down = tuple(reversed(up))
    path, state = [up[0]], None
    for (t0, t1), (before, after) in zip(grid.intervals(), pairwise(down), strict=True):

        def slope(t: float, y: Tensor, t0: float = t0, t1: float = t1) -> Tensor:
            return field(Tick(t, t0, t1), y)

        target = path[-1] + (before - up[0])
        moved, state = solver.step(slope, t0, t1, target, state)
        path.append(path[-1] + (moved - target) - (after - before))
    return tuple(path)
