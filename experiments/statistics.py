"""How sure a mean is: intervals over cases, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval [low, high] over `count` values; `missing` values were NaN and left out.

    The mean is NaN if there are no values; the interval is NaN if there are too few for one.
    """

    mean: float
    low: float
    high: float
    count: int
    missing: int

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float]) -> Estimate:
    """The mean with Student's t interval; two values or more make an interval."""
    known = _known(values)
    count, missing = len(known), len(values) - len(known)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, missing)
    mean = fmean(known)
    if count == 1:
        return Estimate(mean, math.nan, math.nan, 1, missing)
    from scipy.special import stdtrit

    half = float(stdtrit(count - 1, 0.5 + CONFIDENCE / 2)) * stdev(known) / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half, count, missing)


def proportion_interval(values: Sequence[float]) -> Estimate:
    """The share of successes with Wilson's interval (Wilson 1927): values are 0 or 1, one trial each.

    For values between, such as a share of five attributes, the interval is wider than need be, never narrower: a value in
    [0, 1] varies most when it is 0 or 1.
    """
    known = _known(values)
    count, missing = len(known), len(values) - len(known)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, missing)
    from scipy.special import ndtri

    share, z = fmean(known), float(ndtri(0.5 + CONFIDENCE / 2))
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), count, missing)


def paired_difference(values: Mapping[str, float], reference: Mapping[str, float]) -> Estimate:
    """The mean of values minus reference over the cases that both have, with Student's t interval over these differences."""
    return mean_interval([values[case] - reference[case] for case in values if case in reference])


def _known(values: Sequence[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
