"""Which units a probe learns from and which it is tested on.

Belongs here: the random, the spatial and the regional split, as parts of the units; buffers, and training sets of few
labels. Does not belong here: probes, or what a unit is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

RANDOM_PARTS = 5
"""A random split of a large sample is 80/20: one part in five is tested (the paper's split)."""
INNER_FOLDS = 5
"""Of the regional split, in which there may be dozens of parts."""


@dataclass(frozen=True)
class Split:
    """Units cut into parts, and the parts that are held out together.

    The parts, or groups of them, are also the folds of the inner cross-validation in which a probe chooses its penalty,
    so that under the spatial split the penalty is chosen on unseen blocks too.

    Args:
        name: `random`, `spatial` or `region`.
        seed: Seed that drew it.
        part: Part of each unit, int64, shape (n,).
        held_out: One tuple of parts for each fit; no part is in two of them.
        group: What the bootstrap resamples: the unit itself, or its block or region; int64, shape (n,), from 0.
        left_out: Units that a fit does not learn from although they are not held out, bool, shape (fits, n); None: it
            learns from all others.
        few_shot: Whether it was thinned to few labels.
        inner: Groups of parts that are one fold of the inner cross-validation; None: every part is one.
    """

    name: str
    seed: int
    part: np.ndarray
    held_out: tuple[tuple[int, ...], ...]
    group: np.ndarray
    left_out: np.ndarray | None = None
    few_shot: bool = False
    inner: tuple[tuple[int, ...], ...] | None = None

    @property
    def tested(self) -> np.ndarray:
        """Whether each unit is predicted out of sample: bool, shape (n,)."""
        return np.isin(self.part, [part for parts in self.held_out for part in parts])

    def known(self, fit: int) -> np.ndarray:
        """The units that a fit learns from: bool, shape (n,)."""
        known = ~np.isin(self.part, self.held_out[fit])
        return known if self.left_out is None else known & ~self.left_out[fit]

    def inner_folds(self, parts: Iterable[int]) -> list[frozenset[int]]:
        """The folds of the inner cross-validation among the parts that are learnt from; none where there is but one."""
        rest = frozenset(parts)
        folds = [rest & frozenset(group) for group in self.inner or [(part,) for part in sorted(rest)]]
        folds = [fold for fold in folds if fold]
        return folds if len(folds) > 1 else []


def random_split(n: int, seed: int, *, folds: int, small_sample: int) -> Split:
    """80/20 for a large sample; shuffled k-fold for a small one, where 20% would be too few to score.

    Args:
        n: Number of units, at least 2.
        seed: Seed of the shuffle.
        folds: k, for a sample of fewer than `small_sample` units.
        small_sample: Size from which on the split is 80/20.
    """
    small = n < small_sample
    parts = min(folds, n) if small else RANDOM_PARTS
    order = np.random.default_rng(seed).permutation(n)
    part = np.empty(n, dtype=np.int64)
    part[order] = np.arange(n) % parts
    held_out = tuple((k,) for k in range(parts)) if small else ((0,),)
    return _with_inner_parts(Split("random", seed, part, held_out, np.arange(n)))


def spatial_split(blocks: np.ndarray, seed: int, *, folds: int) -> Split | None:
    """K folds of whole blocks; every unit is tested exactly once.

    Blocks go, in shuffled order, to the fold that has the fewest units so far, so that the sizes of two folds differ by
    no more than the largest block. With fewer blocks than folds every block is a fold.

    Args:
        blocks: Block of each unit (any integer labels), shape (n,).
        seed: Seed of the shuffle.
        folds: k.

    Returns:
        The split, or None where all units lie in one block.
    """
    _, group, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    folds = min(folds, len(sizes))
    if folds < 2:
        return None
    fold_of_block = _balanced(sizes, folds, seed)
    held_out = tuple((k,) for k in range(folds))
    return _with_inner_parts(Split("spatial", seed, fold_of_block[group], held_out, group.astype(np.int64)))


def region_split(regions: np.ndarray, seed: int) -> Split | None:
    """Leave one region out, each in turn; every unit is tested exactly once.

    The split does not depend on the seed; the groups of regions among which a penalty is chosen do.

    Args:
        regions: Region of each unit (any integer labels), shape (n,).
        seed: Seed of the groups.

    Returns:
        The split, or None where all units lie in one region.
    """
    _, part, sizes = np.unique(regions, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return None
    part = part.astype(np.int64)
    held_out = tuple((k,) for k in range(len(sizes)))
    fold = _balanced(sizes, min(INNER_FOLDS, len(sizes)), seed)
    inner = tuple(tuple(np.flatnonzero(fold == k).tolist()) for k in range(int(fold.max()) + 1))
    return _with_inner_parts(Split("region", seed, part, held_out, part, inner=inner))


def _balanced(sizes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each block: in shuffled order, that with the fewest units so far."""
    fold_of_block = np.empty(len(sizes), dtype=np.int64)
    filled = np.zeros(folds, dtype=np.int64)
    for block in np.random.default_rng(seed).permutation(len(sizes)):
        fold = int(np.argmin(filled))
        fold_of_block[block] = fold
        filled[fold] += sizes[block]
    return fold_of_block


def _with_inner_parts(split: Split) -> Split:
    """Cut both folds of a two-fold split in half: a probe that learns from one part has none left to choose on."""
    if split.held_out != ((0,), (1,)):
        return split
    rng = np.random.default_rng(split.seed)
    part = split.part.copy()
    for fold in (0, 1):
        units = rng.permutation(np.flatnonzero(split.part == fold))
        part[units[::2]] += 2
    return Split(split.name, split.seed, part, ((0, 2), (1, 3)), split.group)


def buffered(split: Split, places: np.ndarray, distance: float) -> Split | None:
    """The same split, learning from no unit that is near one of those held out.

    Args:
        split: The split.
        places: Where each unit is, on a sphere of radius 1, shape (n, 3).
        distance: Along the sphere, in its radii.

    Returns:
        The split, or None where a fit has no unit left to learn from.
    """
    left_out = np.zeros((len(split.held_out), len(places)), dtype=bool)
    for fit, row in enumerate(left_out):
        known = split.known(fit)
        near, _ = KDTree(places[np.isin(split.part, split.held_out[fit])]).query(places[known])
        row[known] = near < 2 * np.sin(distance / 2)
        if row[known].all():
            return None
    return replace(split, left_out=left_out)


def few_labels(split: Split, fraction: float, fewest: int) -> Split | None:
    """The same split, learning from a fraction of the units only, drawn at random.

    Args:
        split: The split.
        fraction: Of the units that a fit learns from.
        fewest: Units that a fit has to learn from.

    Returns:
        The split, its name followed by the percentage, or None where a fit would have fewer units.
    """
    left_out = np.zeros((len(split.held_out), len(split.part)), dtype=bool)
    for fit, row in enumerate(left_out):
        known = np.flatnonzero(split.known(fit))
        kept = round(fraction * len(known))
        if kept < fewest:
            return None
        order = np.random.default_rng([split.seed, fit]).permutation(known)
        row[:] = True
        row[order[:kept]] = False
    return replace(split, name=f"{split.name}_{100 * fraction:g}%", left_out=left_out, few_shot=True)
