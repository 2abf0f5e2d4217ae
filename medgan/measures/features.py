"""A feature space for 3-D volumes that needs no download and no training: layout, histogram, edges, texture.

Networks trained on photographs say little about a CT, and medical ones must be fetched; radiomics-like statistics are
there on every machine and mean the same everywhere. A distance in this space is no better than its features: always
show it beside the distance between two sets of real volumes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]

LAYOUT_CELLS = 6
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
EDGE_QUANTILES = (0.5, 0.9, 0.99)
BANDS = 8
GROUPS = (LAYOUT_CELLS**3, len(QUANTILES) + 2, len(EDGE_QUANTILES) + 2, BANDS)  # layout, histogram, edges, spectrum
FEATURES_PER_CHANNEL = sum(GROUPS)


def volume_features(volumes: torch.Tensor) -> Array:
    """Describe volumes by layout, histogram, edges and texture.

    For each channel: means over 6 x 6 x 6 cells; quantiles, mean and SD of the values; mean, SD and quantiles of the
    gradient magnitude (central differences, per voxel); log10 power in 8 bands of spatial frequency, of equal width up
    to half a cycle per voxel, after the mean is taken off. The features of one volume do not depend on the others.

    Args:
        volumes: ``(N, C, D, H, W)``, values 0 to 1; every axis of at least 2 voxels.

    Returns:
        ``(N, C * FEATURES_PER_CHANNEL)`` float64.

    Raises:
        ValueError: the shape does not fit, or a value is not finite.
    """
    import torch

    if volumes.ndim != 5 or min(volumes.shape) < 1 or min(volumes.shape[2:]) < 2:
        raise ValueError(f"volumes must be (N, C, D, H, W) with axes of at least 2 voxels, got {tuple(volumes.shape)}")
    bands = _frequency_bands(volumes.shape[2], volumes.shape[3], volumes.shape[4])
    with torch.no_grad():
        rows = [
            torch.cat([_channel_features(channel.detach().cpu().float(), bands) for channel in volume])
            for volume in volumes
        ]
    features = torch.stack(rows).double().numpy()
    if not np.isfinite(features).all():
        raise ValueError("volumes hold values that are not finite")
    return np.asarray(features, dtype=np.float64)


def group_weights(channels: int = 1) -> Array:
    """Weights ``(channels * FEATURES_PER_CHANNEL,)`` that give layout, histogram, edges and spectrum an equal say."""
    one = np.concatenate([np.full(size, size**-0.5) for size in GROUPS])
    return np.tile(one, channels)


SMALLEST_SD = 0.01  # of features on a scale of about 0 to 1


class FeatureSpace:
    """Standardised, decorrelated features: what a set of reference volumes varies in, each direction of unit variance.

    Features are standardised, weighted and projected to the whitened principal components of the reference. At most a
    third as many components as reference samples are kept: whitening divides by a variance that for later ones is a
    guess.

    Args:
        components: how many to keep at most.
        variance: share of the reference's variance to keep, above 0, at most 1.
        weights: one for each feature, e.g. :func:`group_weights`; none: these, where the number of features is that of
            :func:`volume_features`, else all alike.
    """

    def __init__(self, components: int = 16, variance: float = 0.95, weights: Array | None = None) -> None:
        if components < 1:
            raise ValueError(f"components must be at least 1, got {components}")
        if not 0 < variance <= 1:
            raise ValueError(f"variance must be in (0, 1], got {variance}")
        self.components = components
        self.variance = variance
        self.weights = weights
        self._scaler: Any = None
        self._projection: Any = None
        self._kept = 0

    def fit(self, reference: Array) -> FeatureSpace:
        """Learn the space from ``reference`` ``(N, F)``, N at least 3, and return it.

        Raises:
            ValueError: too few samples, no variation at all, or weights that do not fit.
        """
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        reference = _matrix(reference, "reference")
        samples, features = reference.shape
        if samples < 3:
            raise ValueError(f"reference must hold at least 3 samples, got {samples}")
        if self.weights is None:
            whole = features % FEATURES_PER_CHANNEL == 0
            self.weights = group_weights(features // FEATURES_PER_CHANNEL) if whole else np.ones(features)
        if self.weights.shape != (features,):
            raise ValueError(f"weights must have the shape ({features},), got {self.weights.shape}")
        self._scaler = StandardScaler().fit(reference)
        # What hardly varies among the references (black background, say) must not outweigh all else by its 1/SD.
        self._scaler.scale_ = np.maximum(np.sqrt(self._scaler.var_), SMALLEST_SD)
        scaled = self._scaler.transform(reference) * self.weights
        if not np.any(np.abs(scaled) > 1e-9):
            raise ValueError("reference samples are all alike")
        self._projection = PCA(whiten=True, svd_solver="full").fit(scaled)
        ratios = np.asarray(self._projection.explained_variance_ratio_)
        enough = int(np.searchsorted(np.cumsum(ratios), self.variance - 1e-12)) + 1
        above_noise = int((ratios > 1e-12).sum())
        self._kept = max(1, min(self.components, samples // 3, enough, above_noise))
        return self

    def transform(self, features: Array) -> Array:
        """Project ``(N, F)`` features into the space: ``(N, dimensions)``; the reference has mean 0, variance 1 there.

        Raises:
            ValueError: the space is not fitted, or the shape does not fit.
        """
        if self._projection is None or self.weights is None:
            raise ValueError("the feature space is not fitted; call fit first")
        features = _matrix(features, "features")
        if features.shape[1] != self.weights.size:
            raise ValueError(f"features must have {self.weights.size} columns, got {features.shape[1]}")
        projected = self._projection.transform(self._scaler.transform(features) * self.weights)
        return np.asarray(projected[:, : self._kept], dtype=np.float64)


def _channel_features(channel: torch.Tensor, bands: torch.Tensor) -> torch.Tensor:
    """Features ``(FEATURES_PER_CHANNEL,)`` of one ``(D, H, W)`` channel."""
    import torch
    import torch.nn.functional as F

    layout = F.adaptive_avg_pool3d(channel[None, None], LAYOUT_CELLS).flatten()
    histogram = [_quantiles(channel, QUANTILES), torch.stack([channel.mean(), channel.std(correction=0)])]
    edge = torch.stack(torch.gradient(channel)).square().sum(dim=0).sqrt()
    edges = [_quantiles(edge, EDGE_QUANTILES), torch.stack([edge.mean(), edge.std(correction=0)])]
    power = torch.fft.fftn(channel - channel.mean(), norm="ortho").abs().square()
    inside = bands < BANDS
    sums = torch.zeros(BANDS).index_add_(0, bands[inside], power[inside])
    counts = torch.bincount(bands[inside], minlength=BANDS).clamp(min=1)
    spectrum = torch.log10(sums / counts + 1e-8)
    return torch.cat([layout, *histogram, *edges, spectrum])


def _quantiles(values: torch.Tensor, shares: tuple[float, ...]) -> torch.Tensor:
    """Nearest-rank quantiles; ``torch.quantile`` refuses large volumes."""
    import torch

    ranks = [round(share * (values.numel() - 1)) for share in shares]
    # NumPy puts a few ranks in their places and leaves the rest unsorted, in a quarter of the time of torch's sort.
    return torch.from_numpy(np.partition(values.flatten().numpy(), ranks)[ranks])


def _frequency_bands(*shape: int) -> torch.Tensor:
    """Band of each frequency of an FFT over ``shape``; ``BANDS`` for those past half a cycle per voxel."""
    import torch

    axes = torch.meshgrid(*(torch.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = torch.stack(axes).square().sum(dim=0).sqrt()
    return torch.clamp((radius * 2 * BANDS).long(), max=BANDS)


def _matrix(values: Array, name: str) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"{name} must be (samples, features), got the shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite")
    return values
