"""Distances between two sets of features: Frechet's, and the kernel distance. Computed in float64.

Frechet's distance of samples is too large: by about a constant over the number of pictures, the more so the more dimensions
(Chong and Forsyth 2020, arXiv 1911.07023). Two samples of one distribution, 1000 each in 2048 dimensions, stand far apart. So
figures compare at equal numbers of pictures alone. The kernel distance is right on average whatever the number, and may come
out below zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ROWS = 1024
"""Rows of a kernel matrix that are there at once."""


def frechet(x: Tensor, y: Tensor) -> float:
    """The squared Frechet distance of the Gaussians with the means and covariances of features (N, D) and (M, D): |m1 - m2|^2 +
    tr S1 + tr S2 - 2 tr sqrt(S1 S2) (Dowson and Landau 1982; of Inception's features it is the FID of Heusel et al. 2017,
    arXiv 1706.08500). NaN for sets of less than two.

    With S1 = A^T A and S2 = B^T B the last trace is the sum of the singular values of A B^T: no root of a matrix is taken, and
    more dimensions than pictures do no harm.
    """
    if min(len(x), len(y)) < 2:
        return math.nan
    x, y = x.double(), y.double()
    a, b = _root(x), _root(y)
    means = (x.mean(0) - y.mean(0)).square().sum()
    common = torch.linalg.svdvals(a @ b.T).sum()
    return float(means + a.square().sum() + b.square().sum() - 2 * common)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """The squared maximum mean discrepancy of features (N, D) and (M, D) under the kernel (x.y / D + 1)^3, estimated without
    bias over all of them (Binkowski et al. 2018, arXiv 1801.01401: of Inception's features it is their KID, which they and most
    libraries average over random subsets instead). NaN for sets of less than two."""
    n, m = len(x), len(y)
    if min(n, m) < 2:
        return math.nan
    x, y = x.double(), y.double()
    within = _others(x) / (n * (n - 1)) + _others(y) / (m * (m - 1))
    return within - 2 * _kernel_sum(x, y) / (n * m)


def _root(x: Tensor) -> Tensor:
    """A matrix R of at most D rows with R^T R the covariance of features (N, D)."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return centred if len(x) <= x.shape[1] else torch.linalg.qr(centred, mode="r").R


def _kernel(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    """The kernel summed over all pairs of a row of `x` and a row of `y`."""
    return sum(float(_kernel(part @ y.T, x.shape[1]).sum()) for part in torch.split(x, _ROWS))


def _others(x: Tensor) -> float:
    """The kernel summed over all pairs of different rows of `x`."""
    return _kernel_sum(x, x) - float(_kernel(x.square().sum(1), x.shape[1]).sum())
