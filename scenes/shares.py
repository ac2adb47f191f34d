"""A share of right answers with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


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
