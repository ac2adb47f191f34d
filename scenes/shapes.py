"""Signed distances of the eight shapes, in units of the object's radius (negative inside).

Every function takes x and y of any one shape, x to the right and y UP, and returns distances of that shape. They are exact
near the outline, which is all that smoothing an edge over one pixel needs. The closed forms for star and heart are
Inigo Quilez's (iquilezles.org, "2D distance functions").
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor


def circle(x: Tensor, y: Tensor) -> Tensor:
    """A disc."""
    return torch.hypot(x, y) - 0.95


def ring(x: Tensor, y: Tensor) -> Tensor:
    """A disc with a round hole of half its radius."""
    return (torch.hypot(x, y) - 0.72).abs() - 0.24


def _box(x: Tensor, y: Tensor, half_x: float, half_y: float) -> Tensor:
    dx, dy = x.abs() - half_x, y.abs() - half_y
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    return outside + torch.maximum(dx, dy).clamp(max=0)


def square(x: Tensor, y: Tensor) -> Tensor:
    """A square with upright sides."""
    return _box(x, y, 0.78, 0.78)


def cross(x: Tensor, y: Tensor) -> Tensor:
    """A plus sign."""
    return torch.minimum(_box(x, y, 0.94, 0.3), _box(x, y, 0.3, 0.94))


def diamond(x: Tensor, y: Tensor) -> Tensor:
    """A tall rhombus."""
    width, height = 0.66, 1.0
    return (x.abs() * height + y.abs() * width - width * height) / math.hypot(width, height)


def _polygon_faces(x: Tensor, y: Tensor, angles: tuple[float, ...], inner: float) -> Tensor:
    faces = [x * math.cos(angle) + y * math.sin(angle) - inner for angle in angles]
    return torch.stack(faces).amax(dim=0)


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """An equilateral triangle, point up."""
    return _polygon_faces(x, y, (-math.pi / 2, math.pi / 6, 5 * math.pi / 6), 0.5)


def star(x: Tensor, y: Tensor) -> Tensor:
    """A five-pointed star, point up."""
    x = x.abs()
    for k_x, k_y in ((0.809016994375, -0.587785252292), (-0.809016994375, -0.587785252292)):
        fold = 2.0 * (k_x * x + k_y * y).clamp(min=0)
        x, y = x - fold * k_x, y - fold * k_y
    x, y = x.abs(), y - 1.0
    inner = 0.45
    b_x, b_y = inner * 0.587785252292, inner * 0.809016994375 - 1.0
    along = ((x * b_x + y * b_y) / (b_x * b_x + b_y * b_y)).clamp(0.0, 1.0)
    return torch.hypot(x - b_x * along, y - b_y * along) * torch.sign(y * b_x - x * b_y)


def heart(x: Tensor, y: Tensor) -> Tensor:
    """A heart, point down."""
    scale = 1.62
    x, y = x.abs() / scale, (y + 0.9) / scale
    lobe = torch.hypot(x - 0.25, y - 0.75) - math.sqrt(2.0) / 4.0
    cleft = torch.hypot(x, y - 1.0)
    side = 0.5 * (x + y).clamp(min=0)
    body = torch.minimum(cleft, torch.hypot(x - side, y - side)) * torch.sign(x - y)
    return torch.where(x + y > 1.0, lobe, body) * scale


DISTANCES: Final[tuple[Callable[[Tensor, Tensor], Tensor], ...]] = (
    circle,
    square,
    triangle,
    star,
    heart,
    ring,
    cross,
    diamond,
)
"""The distance functions in the order of `attributes.SHAPES`."""
