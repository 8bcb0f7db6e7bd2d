"""From the trained encoder to the published vector: spatial factors of the features beside what the training found.

Belongs here: the closed-form part of the embedding, and how it is put together with the trained part. Does not belong
here: training (see `training`), the propagation over mobility (see `propagation`).

Contrast keeps what the modalities share, and a few numbers of it; a label may hang on what only one of them shows. So
part of the dimensions are spatial factors: the linear combinations of all features that agree best between a cell and
the cells beside it (min/max autocorrelation factors: Switzer and Green 1984, Stanford Technical Report 6; Larsen 2002,
https://doi.org/10.1002/cem.743). What changes from cell to cell without order is noise to any label of a place; what is
smooth is not. No label is looked at.

A factor counts by the square of its autocorrelation, and all dimensions are turned by one random rotation: a distance
between two vectors is then led by the factors that can be trusted, and so is a ridge regression on few labels, which
would make the noise of the last as loud as the first if each had a dimension of its own.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mobclip_core.encoder.features import ModalityFeatures
from mobclip_core.vectors import signed

_SMALLEST_SHARE = 1e-6
"""Components of one modality with less than this share of its largest variance are rounding."""
_SMALLEST_JOINT = 1e-3
"""Of the variance of the strongest direction, once each modality is white: below, modalities repeat one another."""
_POWER = 2
_TRAINED_SCALE = 0.5


@dataclass(frozen=True)
class Readout:
    """From features and trained vectors to the published ones: the sum of what both give.

    A factor of a cell beyond those of the training counts as the nearest of them: what a regression learnt of a factor
    says nothing of the values that it never saw.

    Args:
        factors: Maps the features and presence of a cell to its factors, (D + M, K).
        lowest: Of each factor in the training, (K,).
        highest: (K,).
        rotation: Maps the factors into the space of the vectors, (K, d).
        trained: Maps the trained vector, (d, d).
        offset: (d,).
        autocorrelation: Of each factor, falling, (K,).
    """

    factors: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    rotation: np.ndarray
    trained: np.ndarray
    offset: np.ndarray
    autocorrelation: np.ndarray

    def of_features(self, values: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """What the features give to the published vectors.

        Args:
            values: `stacked` features, (n, D + M).
            beside: Mean of the same over the cells beside each, see `mean_beside`, (n, D + M).

        Returns:
            float32 (n, d).
        """
        factors = (values + beside) / np.float32(2) @ self.factors
        return np.asarray(np.clip(factors, self.lowest, self.highest) @ self.rotation, dtype=np.float32)

    def of_trained(self, trained: np.ndarray) -> np.ndarray:
        """What trained vectors (n, d) give to the published ones: float32 (n, d)."""
        return np.asarray(trained @ self.trained + self.offset, dtype=np.float32)


def stacked(features: ModalityFeatures) -> np.ndarray:
    """All features of a cell and which modalities it has, float32 (N, D + M), modalities by name."""
    parts = [features.modalities[name] for name in sorted(features.modalities)]
    masks = np.column_stack([part.mask for part in parts]).astype(np.float32)
    return np.concatenate([*(part.values for part in parts), masks], axis=1)


def _groups(features: ModalityFeatures) -> list[np.ndarray]:
    """Columns of `stacked` that belong to each modality."""
    names = sorted(features.modalities)
    widths = [features.modalities[name].values.shape[1] for name in names]
    ends = np.cumsum([0, *widths])
    return [np.append(np.arange(ends[i], ends[i + 1]), ends[-1] + i) for i in range(len(names))]


def mean_beside(edges: np.ndarray, nodes: int) -> sparse.csr_array:
    """The matrix that averages over adjacent cells; a cell with none is its own mean.

    Args:
        edges: Adjacent cells, both ways, (2, E).
        nodes: N.
    """
    count = np.bincount(edges[0], minlength=nodes)
    alone = np.flatnonzero(count == 0)
    row, column = np.append(edges[0], alone), np.append(edges[1], alone)
    weight = (1 / np.maximum(count, 1)).astype(np.float32)[row]
    return sparse.csr_array((weight, (row, column)), shape=(nodes, nodes))


def directions_of(dimensions: int, seed: int) -> np.ndarray:
    """The random rotation of the dimensions, (d, d): the first rows are for the factors, the last for the position."""
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(dimensions, dimensions)))[0])


def fit_readout(
    features: ModalityFeatures, edges: np.ndarray, trained: np.ndarray, factors: int, seed: int, spared: int = 0
) -> Readout:
    """Find the factors, and the leading components of the trained vectors for the dimensions that are left.

    Args:
        features: Standardised features of all cells.
        edges: Adjacent cells, both ways, (2, E).
        trained: Trained vectors of the same cells, (N, d).
        factors: How many dimensions the factors get, below d; fewer where the features hold no more.
        seed: Of the rotation.
        spared: Dimensions that are left for the position.
    """
    values = stacked(features)
    d = trained.shape[1]
    mean = values.mean(axis=0, dtype=np.float64)
    # products of centred columns from those of the columns: the whole table is not copied
    moments = (values.T @ values).astype(np.float64) / len(values) - np.outer(mean, mean)
    averaged = mean_beside(edges, len(values)) @ values
    mean_averaged = averaged.mean(axis=0, dtype=np.float64)
    crossed = (values.T @ averaged).astype(np.float64) / len(values) - np.outer(mean, mean_averaged)
    white = _white(moments, _groups(features))
    found, directions = np.linalg.eigh(_symmetric(white.T @ crossed @ white))
    kept = slice(None, None, -1)
    found, directions = found[kept][:factors], directions[:, kept][:, :factors]
    counted = np.maximum(found, 0)
    turned = directions_of(d, seed)
    by_factor = signed(white @ directions) * counted**_POWER
    components, centre = _components(trained, d - len(found) - spared)
    rotation = turned[: len(found)]
    of_trained = components @ turned[len(found) : len(found) + components.shape[1]]
    offset = -((mean + mean_averaged) / 2 @ by_factor @ rotation + centre @ of_trained)
    factors_of = by_factor.astype(np.float32)
    known = (values @ factors_of + averaged @ factors_of) / 2
    parts = (factors_of, known.min(axis=0), known.max(axis=0), rotation, of_trained, offset, found)
    return Readout(*(np.asarray(part, np.float32) for part in parts))


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return np.asarray((matrix + matrix.T) / 2)


def _white(moments: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """Directions of unit variance and no correlation, after every modality was made white by itself: (D + M, K).

    By itself first, so that 500 image features do not outweigh 40 of the census.
    """
    parts = np.zeros((len(moments), 0))
    for columns in groups:
        variance, axes = np.linalg.eigh(moments[np.ix_(columns, columns)])
        good = variance > _SMALLEST_SHARE * max(variance[-1], 0)
        part = np.zeros((len(moments), int(good.sum())))
        part[columns] = axes[:, good] / np.sqrt(variance[good])
        parts = np.column_stack([parts, part])
    if not parts.shape[1]:
        return parts
    variance, axes = np.linalg.eigh(_symmetric(parts.T @ moments @ parts))
    good = variance > _SMALLEST_JOINT * variance[-1]
    return np.asarray(parts @ (axes[:, good] / np.sqrt(variance[good])))


def _components(trained: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading principal components of the trained vectors, made white: (d, count), and their mean (d,)."""
    centre = trained.mean(axis=0, dtype=np.float64)
    covariance = (trained.T @ trained).astype(np.float64) / len(trained) - np.outer(centre, centre)
    variance, axes = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1][:count]
    good = order[variance[order] > _SMALLEST_SHARE * max(variance[-1], 0)]
    return signed(axes[:, good]) * (_TRAINED_SCALE / np.sqrt(variance[good])), centre
