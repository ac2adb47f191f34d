"""Guidance by extra rows, on numbers that can be checked by hand."""

from __future__ import annotations

import pytest
import torch
from fe.models.guidance import GuidedCondition
from torch import Tensor


def condition(*guidance: float, first: float = 0.0) -> GuidedCondition:
    """Rows that read (10, 11, ...) + first, guided away from the same numbers negated."""
    text = 10 + first + torch.arange(len(guidance), dtype=torch.float32)[:, None]
    return GuidedCondition((text, 2 * text), (-text, -2 * text), guidance)


def test_only_guidance_above_one_costs_a_row() -> None:
    mixed = condition(1.0, 3.0, 0.5, 1.5)
    assert mixed.owners == [0, 1, 2, 3, 1, 3]
    first, second = mixed.network_rows
    assert first.flatten().tolist() == [10, 11, 12, 13, -11, -13]
    assert torch.equal(second, 2 * first)
    assert condition(1.0, 0.0, -2.0).owners == [0, 1, 2]
    assert condition(1.001).owners == [0, 0]


def test_a_row_is_moved_from_its_negative_through_its_text() -> None:
    mixed = condition(1.0, 3.0, 0.5, 1.5)
    output = torch.tensor([5.0, 6.0, 7.0, 8.0, 2.0, 4.0])[:, None, None]  # text rows, then the negatives of rows 1 and 3
    assert mixed.combined(output).flatten().tolist() == [5.0, 2 + 3 * (6 - 2), 7.0, 4 + 1.5 * (8 - 4)]
    assert output.flatten().tolist() == [5.0, 6.0, 7.0, 8.0, 2.0, 4.0]  # what the network gave is left as it was


def test_joining_is_the_rows_one_after_the_other() -> None:
    one, other = condition(3.0, 1.0), condition(2.0, first=50)
    both = one.joined(other)
    assert (len(both), both.guidance, both.owners) == (3, (3.0, 1.0, 2.0), [0, 1, 2, 0, 2])
    assert both.network_rows[0].flatten().tolist() == [10, 11, 60, -10, -60]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_scale_is_as_exact_as_the_velocity(dtype: torch.dtype) -> None:
    velocity = condition(3.3).combined(torch.tensor([[1.0], [0.0]], dtype=dtype))
    assert velocity.dtype == dtype
    assert velocity.item() == torch.tensor(3.3, dtype=dtype).item()


def test_unequal_rows_are_refused() -> None:
    row, rows = torch.zeros(1, 2), torch.zeros(2, 2)
    faults: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[float, ...]]] = [
        ((rows,), (rows,), (1.0,)),
        ((rows, row), (rows, rows), (1.0, 2.0)),
        ((rows,), (row,), (1.0, 2.0)),
    ]
    for text, negative, guidance in faults:
        with pytest.raises(ValueError, match=r"as many embeddings as guidances, got \[1, 2\] rows"):
            GuidedCondition(text, negative, guidance)
