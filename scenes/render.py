"""The renderer: pictures from attributes and nuisances, a whole batch at once, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from .attributes import RANGES, Nuisance, Scene
from .shapes import DISTANCES

SIZE: Final = 64
"""Width and height of a picture in pixels."""

# Hue (degrees), saturation and value of each named colour, in the order of COLOURS. Hues lie 25 degrees or more apart or
# differ in saturation, so that five degrees of jitter never make one look like another.
_COLOURS: Final = (
    (0.0, 0.90, 0.90),
    (29.0, 0.95, 1.00),
    (56.0, 0.90, 1.00),
    (120.0, 0.80, 0.72),
    (180.0, 0.75, 0.95),
    (226.0, 0.85, 0.92),
    (277.0, 0.75, 0.72),
    (330.0, 0.42, 1.00),
)
_RADII: Final = (0.31, 0.50)
_PLACES: Final = (-0.38, 0.0, 0.38)
_DARK: Final = 0.68
_SHAPE, _COLOUR, _SIZE, _POSITION, _BACKGROUND, _PATTERN = range(6)


def render(scenes: Sequence[Scene], nuisances: Sequence[Nuisance], device: torch.device | str = "cpu") -> Tensor:
    """Pictures of scenes: float32 RGB in [0, 1], shape (B, 3, 64, 64).

    Raises:
        ValueError: there are not as many nuisances as scenes.
    """
    if len(scenes) != len(nuisances):
        raise ValueError(f"each scene needs its nuisances: got {len(scenes)} scenes and {len(nuisances)} nuisances")
    attributes = torch.tensor([scene.indices() for scene in scenes], dtype=torch.long).reshape(-1, 6)
    values = torch.tensor([nuisance.values() for nuisance in nuisances], dtype=torch.float32).reshape(-1, len(RANGES))
    return render_indices(attributes.to(device), values.to(device))


def render_indices(attributes: Tensor, nuisances: Tensor) -> Tensor:
    """Pictures (B, 3, 64, 64) from attribute indices (B, 6, long) and nuisances (B, 10, float32), on their device."""
    device = attributes.device
    axis = (torch.arange(SIZE, device=device, dtype=torch.float32) + 0.5) * (2.0 / SIZE) - 1.0
    x, y = axis[None, None, :], -axis[None, :, None]  # (1, 1, W) to the right, (1, H, 1) upwards
    n = {name: nuisances[:, i, None, None] for i, name in enumerate(RANGES)}  # each (B, 1, 1)

    cover = _object(attributes, n, x, y)[:, None]  # (B, 1, H, W)
    shade = 1.0 - (1.0 - _DARK) * _pattern(attributes[:, _PATTERN], n, x, y)[:, None]
    front = _rgb(attributes[:, _COLOUR], n["hue"].flatten())[:, :, None, None]
    back = _rgb(attributes[:, _BACKGROUND], n["background_hue"].flatten())[:, :, None, None]
    return front * cover + back * shade * (1.0 - cover)


def _turn(x: Tensor, y: Tensor, degrees: Tensor) -> tuple[Tensor, Tensor]:
    angle = torch.deg2rad(degrees)
    cos, sin = angle.cos(), angle.sin()
    return x * cos + y * sin, y * cos - x * sin


def _object(attributes: Tensor, n: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """How much of each pixel the object covers, (B, H, W) in [0, 1]."""
    places = x.new_tensor(_PLACES)[attributes[:, _POSITION], None, None]
    radius = x.new_tensor(_RADII)[attributes[:, _SIZE], None, None] + n["radius"]
    u, v = _turn((x - places - n["x"]) / radius, (y - n["y"]) / radius, n["rotation"])
    distance = torch.empty_like(u)
    for index, signed_distance in enumerate(DISTANCES):
        rows = (attributes[:, _SHAPE] == index).nonzero().flatten()
        if len(rows):
            distance[rows] = signed_distance(u[rows], v[rows])
    return (0.5 - distance * radius * (SIZE / 2.0)).clamp(0.0, 1.0)


def _pattern(patterns: Tensor, n: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Where the background is dark, (B, H, W) in [0, 1]; edges are about one pixel wide."""
    half = SIZE / 2.0
    u, v = _turn(x * half / n["period"], y * half / n["period"], n["angle"])
    a = torch.cos((u + n["phase_x"]) * (2.0 * torch.pi))  # (B, H, W), one cycle a period
    b = torch.cos((v + n["phase_y"]) * (2.0 * torch.pi))
    sharp = n["period"] / (2.0 * torch.pi)  # turns a phase into pixels at the edge
    striped = (0.5 + sharp * a).clamp(0.0, 1.0)
    dotted = (0.5 + sharp * (a + b - 0.6)).clamp(0.0, 1.0)
    checkered = striped + (0.5 + sharp * b).clamp(0.0, 1.0) * (1.0 - 2.0 * striped)
    drawn = torch.stack((torch.zeros_like(striped), striped, dotted, checkered), dim=1)  # (B, 4, H, W)
    return drawn[torch.arange(len(patterns), device=patterns.device), patterns]


def _rgb(colours: Tensor, jitter: Tensor) -> Tensor:
    """RGB (B, 3) in [0, 1] of colour indices (B,) with their hues moved by `jitter` degrees (B,)."""
    hue, saturation, value = jitter.new_tensor(_COLOURS)[colours].unbind(dim=1)
    offsets = jitter.new_tensor((5.0, 3.0, 1.0))
    k = (offsets + (hue + jitter)[:, None] / 60.0) % 6.0
    fall = torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * fall)
