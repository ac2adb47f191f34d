"""Training pictures: random scenes, never one of the held-out combinations, the same for a step on every machine."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from .attributes import COLOURS, RANGES, SHAPES, VALUES, Scene, is_held_out

TRAIN_SEED: Final = 1_000_000_000
"""Seeds from here on belong to training; development and test use small ones (see `counterfactual`)."""


def _held_out_table() -> Tensor:
    table = torch.zeros(len(SHAPES), len(COLOURS), len(COLOURS), dtype=torch.bool)
    for shape in range(len(SHAPES)):
        for colour in range(len(COLOURS)):
            for background in range(len(COLOURS)):
                table[shape, colour, background] = is_held_out(shape, colour, background)
    return table


HELD_OUT: Final = _held_out_table()


def draw_nuisances(count: int, generator: torch.Generator) -> Tensor:
    """Random nuisances (count, 10), float32, on the CPU."""
    low, high = torch.tensor(list(RANGES.values())).unbind(dim=1)
    return low + (high - low) * torch.rand(count, len(RANGES), generator=generator)


def draw_attributes(count: int, generator: torch.Generator, held_out: bool = False) -> Tensor:
    """Random attribute indices (count, 6), long, on the CPU; object and background differ in colour.

    Without `held_out` the combinations kept out of the training do not occur.
    """
    sizes = torch.tensor([len(values) for values in VALUES.values()])
    rows: list[Tensor] = []
    found = 0
    while found < count:
        drawn = (torch.rand(2 * count + 8, len(VALUES), generator=generator) * sizes).long()
        shape, colour, background = drawn[:, 0], drawn[:, 1], drawn[:, 4]
        good = colour != background
        if not held_out:
            good &= ~HELD_OUT[shape, colour, background]
        rows.append(drawn[good])
        found += int(good.sum())
    return torch.cat(rows)[:count]


def draw_batch(count: int, seed: int, held_out: bool = False) -> tuple[Tensor, Tensor]:
    """Attributes (count, 6) and nuisances (count, 10) of one seed, on the CPU: a few hundred numbers, cheap to move."""
    generator = torch.Generator().manual_seed(seed)
    return draw_attributes(count, generator, held_out), draw_nuisances(count, generator)


def scene_of(indices: Tensor) -> Scene:
    """The scene of one row of attribute indices (6,)."""
    return Scene(*(values[int(i)] for values, i in zip(VALUES.values(), indices, strict=True)))
