"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): a guided row costs a second row of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from .prompts import check_asked, encode_each


@dataclass(frozen=True)
class GuidedCondition:
    """Prompts for a network that is guided by an extra row. `text`: what the network reads of each prompt, tensors (B, ...);
    `negative`: the same of what it is guided away from; `guidance`: the scale of each row.

    The velocity of a row is v_negative + guidance (v_text - v_negative) where guidance is above 1, and v_text where it is
    1 or below, as in diffusers: such rows cost one row. Raises ValueError if the numbers of rows differ.
    """

    text: tuple[Tensor, ...]
    negative: tuple[Tensor, ...]
    guidance: tuple[float, ...]

    def __post_init__(self) -> None:
        counts = {len(self.guidance), *(len(rows) for rows in (*self.text, *self.negative))}
        if len(counts) > 1:
            raise ValueError(f"a condition needs as many embeddings as guidances, got {sorted(counts)} rows")

    @classmethod
    def of(cls, prompts: Sequence[str], guidance: float, encode: Callable[[list[str]], Sequence[Tensor]]) -> Self:
        """One row for each prompt, all at one guidance away from the empty prompt; `encode` gives what the network reads.
        Raises ValueError for no prompts or a guidance that is not finite."""
        check_asked(prompts, guidance)
        rows = len(prompts)
        encoded = encode_each([*prompts, *[""] * rows], encode)
        return cls(tuple(some[:rows] for some in encoded), tuple(some[rows:] for some in encoded), (guidance,) * rows)

    def __len__(self) -> int:
        return len(self.guidance)

    def joined(self, other: Self) -> Self:
        """The rows of this condition followed by those of `other`."""
        return type(self)(
            tuple(map(torch.cat, zip(self.text, other.text, strict=True))),
            tuple(map(torch.cat, zip(self.negative, other.negative, strict=True))),
            self.guidance + other.guidance,
        )

    @property
    def owners(self) -> list[int]:
        """For each row of the network, the row of this condition that it serves: all text rows, then the negative ones."""
        return [*range(len(self)), *self._guided]

    @property
    def network_rows(self) -> tuple[Tensor, ...]:
        """What the network reads, row by row in the order of `owners`."""
        guided = self._guided
        return tuple(torch.cat([text, negative[guided]]) for text, negative in zip(self.text, self.negative, strict=True))

    def combined(self, output: Tensor) -> Tensor:
        """The guided velocity (B, ...) from the network's output, one entry a network row."""
        guided, rows = self._guided, len(self)
        text, negative = output[:rows], output[rows:]
        if not guided:
            return text
        scale = text.new_tensor([self.guidance[row] for row in guided]).reshape(-1, *(1,) * (text.ndim - 1))
        mixed = text.clone()
        mixed[guided] = negative + scale * (text[guided] - negative)
        return mixed

    @property
    def _guided(self) -> list[int]:
        return [row for row, scale in enumerate(self.guidance) if scale > 1.0]
