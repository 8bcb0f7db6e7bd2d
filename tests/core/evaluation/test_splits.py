import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.evaluation.splits import buffered, few_labels, random_split, region_split, spatial_split
from mobclip_core.sphere import unit_vectors

BLOCKS = st.lists(st.integers(0, 12), min_size=2, max_size=120).map(np.array)


def times_tested(split):
    return sum(np.isin(split.part, parts).astype(int) for parts in split.held_out)


@given(blocks=BLOCKS, seed=st.integers(0, 1000), folds=st.integers(2, 8))
@settings(deadline=None)
def test_spatial_split_tests_every_unit_once_and_never_cuts_a_block(blocks, seed, folds):
    split = spatial_split(blocks, seed, folds=folds)
    kinds = np.unique(blocks)
    if len(kinds) == 1:
        assert split is None
        return
    assert (times_tested(split) == 1).all()
    assert split.tested.all()
    assert len(split.held_out) == min(folds, len(kinds))
    fold = np.array([next(k for k, parts in enumerate(split.held_out) if p in parts) for p in split.part])
    for kind in kinds:
        assert len(set(fold[blocks == kind])) == 1
    sizes = np.bincount(fold, minlength=len(split.held_out))
    assert sizes.min() > 0
    assert sizes.max() - sizes.min() <= max((blocks == kind).sum() for kind in kinds)
    np.testing.assert_array_equal(kinds[split.group], blocks)


@given(n=st.integers(10, 300), seed=st.integers(0, 1000), folds=st.integers(2, 12), small=st.integers(2, 300))
@settings(deadline=None)
def test_random_split_is_k_fold_below_small_sample_and_80_20_above(n, seed, folds, small):
    split = random_split(n, seed, folds=folds, small_sample=small)
    tested = times_tested(split)
    assert tested.max() == 1
    if n < small:
        assert (tested == 1).all()
        sizes = [np.isin(split.part, parts).sum() for parts in split.held_out]
        assert len(sizes) == min(folds, n)
        assert max(sizes) - min(sizes) <= 1
    else:
        assert split.tested.sum() == -(-n // 5)
        assert split.held_out == ((0,),)


@given(regions=BLOCKS, seed=st.integers(0, 1000))
@settings(deadline=None)
def test_region_split_leaves_out_one_region_after_the_other(regions, seed):
    split = region_split(regions, seed)
    kinds = np.unique(regions)
    if len(kinds) == 1:
        assert split is None
        return
    assert (times_tested(split) == 1).all()
    assert len(split.held_out) == len(kinds)
    for fit, parts in enumerate(split.held_out):
        held_out = np.isin(split.part, parts)
        assert len(set(regions[held_out])) == 1
        np.testing.assert_array_equal(split.known(fit), ~held_out)
        rest = frozenset(split.part[~held_out].tolist())
        folds = split.inner_folds(rest)
        assert len(folds) <= 5
        if folds:
            assert frozenset.union(*folds) == rest
            assert sum(map(len, folds)) == len(rest)


def test_the_inner_folds_are_groups_of_parts_or_the_parts():
    split = region_split(np.arange(12), 0)
    assert [len(fold) for fold in split.inner_folds(range(12))] == [3, 3, 2, 2, 2]
    plain = spatial_split(np.arange(12), 0, folds=4)
    assert plain.inner_folds({0, 2, 3}) == [{0}, {2}, {3}]
    assert plain.inner_folds({3}) == []


def test_seeds_differ_and_repeat():
    blocks = np.arange(40) // 2
    first, again, other = (spatial_split(blocks, seed, folds=5) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.part, again.part)
    assert (first.part != other.part).any()
    assert (
        random_split(40, 0, folds=5, small_sample=10).part != random_split(40, 1, folds=5, small_sample=10).part
    ).any()


def test_two_folds_leave_parts_to_choose_the_penalty_on():
    split = spatial_split(np.array([7] * 6 + [9] * 4), seed=0, folds=5)
    assert split.held_out == ((0, 2), (1, 3))
    assert sorted(np.bincount(split.part)) == [2, 2, 3, 3]
    assert set(split.part[:6]) in ({0, 2}, {1, 3})


def test_a_buffer_is_the_distance_to_what_is_held_out():
    places = unit_vectors(np.arange(40) / 10, np.zeros(40))
    split = spatial_split(np.arange(40) // 10, seed=0, folds=4)
    width = np.radians(0.25)
    found = buffered(split, places, width)
    for fit in range(4):
        tested = np.isin(split.part, split.held_out[fit])
        distance = np.abs(np.arange(40)[:, None] - np.flatnonzero(tested)).min(axis=1) / 10
        np.testing.assert_array_equal(found.known(fit), distance > 0.25)
    np.testing.assert_array_equal(found.tested, split.tested)
    assert buffered(split, places, np.radians(5)) is None


@given(n=st.integers(10, 200), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 100))
@settings(deadline=None)
def test_few_labels_are_a_part_of_those_that_there_were(n, fraction, seed):
    split = random_split(n, seed, folds=5, small_sample=50)
    found = few_labels(split, fraction, fewest=3)
    sizes = [split.known(fit).sum() for fit in range(len(split.held_out))]
    wanted = [round(fraction * size) for size in sizes]
    if min(wanted) < 3:
        assert found is None
        return
    assert found.name == f"random_{100 * fraction:g}%"
    for fit, size in enumerate(wanted):
        assert found.known(fit).sum() == size
        assert not (found.known(fit) & ~split.known(fit)).any()
    np.testing.assert_array_equal(found.tested, split.tested)
