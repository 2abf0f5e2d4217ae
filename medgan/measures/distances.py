"""How far two sets of samples lie apart, how one covers the other, and what in one is a copy of the other.

Sets are ``(N, F)`` feature matrices (see :mod:`medgan.measures.features`) unless stated otherwise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

Array = NDArray[np.float64]


def kernel_distance(x: Array, y: Array, kernel: Literal["polynomial", "rbf"] = "polynomial") -> float:
    """Unbiased squared maximum mean discrepancy between two sets.

    For two sets of one distribution it is 0 on average, and so may be negative; at most 2 for the RBF kernel, without
    bound for the polynomial one.

    Args:
        x, y: ``(N, F)`` and ``(M, F)``, at least 2 samples each.
        kernel: ``polynomial`` ``(x.y / F + 1)^3``, the kernel inception distance (Bińkowski et al., ICLR 2018), or
            ``rbf`` with the median of the pooled distances as bandwidth (Gretton et al., JMLR 13, 2012).

    Raises:
        ValueError: shapes that do not fit, values that are not finite, an unknown kernel.
    """
    x, y = _pair(x, y, least=2)
    if kernel == "polynomial":
        k_xx, k_yy, k_xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    elif kernel == "rbf":
        bandwidth = float(np.median(pdist(np.concatenate([x, y])))) or 1.0
        k_xx, k_yy, k_xy = (
            np.exp(-cdist(a, b, "sqeuclidean") / (2 * bandwidth**2)) for a, b in ((x, x), (y, y), (x, y))
        )
    else:
        raise ValueError(f"kernel must be 'polynomial' or 'rbf', got {kernel!r}")
    n, m = len(x), len(y)
    within_x = (k_xx.sum() - np.trace(k_xx)) / (n * (n - 1))
    within_y = (k_yy.sum() - np.trace(k_yy)) / (m * (m - 1))
    return float(within_x + within_y - 2 * k_xy.mean())


def frechet_distance(x: Array, y: Array, shrink: bool = True) -> float:
    """Squared Fréchet (2-Wasserstein) distance between Gaussians fitted to two sets, as in FID.

    Source: Heusel et al., NeurIPS 2017. It depends on the numbers of samples, so compare only at equal ones. With fewer
    samples than features an empirical covariance is singular; ``shrink`` uses that of Ledoit and Wolf (Journal of
    Multivariate Analysis 88, 2004) instead, which is drawn toward a multiple of the identity the more, the fewer the
    samples are. State it with the figure.

    Args:
        x, y: ``(N, F)`` and ``(M, F)``, at least 2 samples each.
        shrink: Ledoit-Wolf covariances; otherwise the empirical ones.

    Raises:
        ValueError: shapes that do not fit, values that are not finite.
    """
    x, y = _pair(x, y, least=2)
    shift = x.mean(axis=0) - y.mean(axis=0)
    cov_x, cov_y = _covariance(x, shrink), _covariance(y, shrink)
    root_x = _matrix_root(cov_x)
    cross = np.linalg.eigvalsh(root_x @ cov_y @ root_x).clip(min=0)
    distance = shift @ shift + np.trace(cov_x) + np.trace(cov_y) - 2 * np.sqrt(cross).sum()
    return max(0.0, float(distance))


def prdc(real: Array, fake: Array, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage, by balls around samples that reach the k-th neighbour of the same set.

    Precision: share of fakes inside a real sample's ball. Recall: share of reals inside a fake's ball (Kynkäänniemi et
    al., NeurIPS 2019). Density: real balls that hold a fake, on average over fakes and divided by k; may exceed 1.
    Coverage: share of reals whose ball holds a fake (Naeem et al., ICML 2020). All 0 for sets far apart.

    Args:
        real, fake: ``(N, F)`` and ``(M, F)``, both of more than ``k`` samples.
        k: neighbour that sets a ball's radius, the sample itself not counted; at least 1.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, k out of range.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    real, fake = _pair(real, fake, least=k + 1)
    real_radius, fake_radius = _ball_radius(real, k), _ball_radius(fake, k)
    distance = cdist(real, fake)
    in_real_ball = distance <= real_radius[:, None]  # (real, fake)
    in_fake_ball = distance <= fake_radius[None, :]
    return {
        "precision": float(in_real_ball.any(axis=0).mean()),
        "recall": float(in_fake_ball.any(axis=1).mean()),
        "density": float(in_real_ball.sum(axis=0).mean() / k),
        "coverage": float(in_real_ball.any(axis=1).mean()),
    }


def correlations(volumes: NDArray[np.floating], references: NDArray[np.floating]) -> Array:
    """Return the Pearson correlations of volumes with references, voxel by voxel.

    Correlation is blind to a change of scale and offset, which would hide a copy from a distance. A constant volume
    correlates 0 with everything.

    Args:
        volumes: ``(N, ...)``.
        references: ``(M, ...)``, the rest of the shape as that of ``volumes``; N and M at least 1.

    Returns:
        ``(N, M)``, from -1 to 1.

    Raises:
        ValueError: shapes that do not fit, values that are not finite.
    """
    if volumes.shape[1:] != references.shape[1:] or not len(volumes) or not len(references):
        raise ValueError(f"volumes and references must match, got the shapes {volumes.shape} and {references.shape}")
    return (_standard_rows(volumes) @ _standard_rows(references).T).clip(-1, 1)


def pairwise_spread(items: NDArray[np.floating]) -> float:
    """Mean RMS difference between every two of ``(N, ...)`` items, in their own unit; 0 if there are fewer than two.

    For the siblings of one source it says how different they are; the items may be volumes or displacement fields.
    """
    if len(items) < 2:
        return 0.0
    flat = np.asarray(items, dtype=np.float64).reshape(len(items), -1)
    return float(pdist(flat).mean() / np.sqrt(flat.shape[1]))


def _pair(x: Array, y: Array, least: int) -> tuple[Array, Array]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise ValueError(f"sets must be (N, F) and (M, F), got the shapes {x.shape} and {y.shape}")
    if min(len(x), len(y)) < least:
        raise ValueError(f"sets must hold at least {least} samples each, got {len(x)} and {len(y)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("sets hold values that are not finite")
    return x, y


def _covariance(x: Array, shrink: bool) -> Array:
    from sklearn.covariance import ledoit_wolf

    return np.asarray(ledoit_wolf(x)[0]) if shrink else np.atleast_2d(np.cov(x, rowvar=False))


def _matrix_root(covariance: Array) -> Array:
    values, vectors = np.linalg.eigh(covariance)
    root: Array = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def _ball_radius(x: Array, k: int) -> Array:
    distance = cdist(x, x)
    return np.partition(distance, k, axis=1)[:, k]  # the smallest is the sample's distance to itself


def _standard_rows(volumes: NDArray[np.floating]) -> Array:
    rows = np.asarray(volumes, dtype=np.float64).reshape(len(volumes), -1)
    if not np.isfinite(rows).all():
        raise ValueError("volumes hold values that are not finite")
    rounding = 1e-12 * np.sqrt(rows.shape[1]) * np.abs(rows).max(axis=1, keepdims=True)
    rows = rows - rows.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    standard: Array = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > rounding)
    return standard
