"""A share of right answers, or a mean, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest
from torch import Tensor


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
        low, high = binomtest(self.right, self.n).proportion_ci(method="wilson")
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.share:7.2%} of {self.n} ({low:.2%} to {high:.2%})"


def mean(values: Tensor) -> tuple[float, float]:
    """The mean of values (B,), two or more, and the half width of its 95 % interval."""
    return float(values.mean()), 1.959964 * float(values.std()) / len(values) ** 0.5
