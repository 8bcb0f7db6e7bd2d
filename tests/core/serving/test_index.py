"""The approximate index: it proposes, `similar` answers."""

import dataclasses

import numpy as np
import pytest

from mobclip_core.errors import ContractError, FingerprintError, MissingTableError
from mobclip_core.serving import LikenessIndex
from tests.places import make_places

pytest.importorskip("usearch")


@pytest.fixture(scope="module")
def places():
    """1,261 cells whose vectors differ in six dimensions."""
    return make_places(rings=20, dimensions=6)


@pytest.fixture(scope="module")
def index(places):
    return LikenessIndex.of(places)


def test_nearly_all_of_the_most_similar_are_found_and_their_likeness_is_exact(places, index):
    found = 0
    for cell in places.cells[::50].tolist():
        exact, near = places.similar(cell=cell, k=10), places.similar(cell=cell, k=10, index=index)
        assert cell not in near.cells
        assert len(near.cells) == 10
        assert (np.diff(near.similarity) <= 0).all()
        same = np.isin(near.cells, exact.cells)
        found += same.sum()
        known = dict(zip(exact.cells.tolist(), exact.similarity.tolist(), strict=True))
        for other, likeness in zip(near.cells[same].tolist(), near.similarity[same].tolist(), strict=True):
            assert likeness == pytest.approx(known[other], abs=1e-6)
    assert found >= 0.95 * 10 * len(places.cells[::50])


def test_a_region_is_searched_until_enough_of_its_cells_are_there(places, index):
    few = dataclasses.replace(places, region=(np.arange(len(places)) % 100 == 0).astype(np.int64))
    found = few.similar(cell=int(places.cells[1]), k=12, regions=["west"], index=index)
    # all 13 of them have to be looked for among all cells
    assert len(found.cells) == 12
    assert set(found.region) == {"west"}
    assert len(few.similar(cell=int(places.cells[1]), k=20, regions=["west"], index=index).cells) == 13


def test_it_comes_back_from_its_file(places, index, tmp_path):
    path = index.save(tmp_path / "likeness" / "usa.usearch")
    again = LikenessIndex.open(path)
    assert (again.encoder, len(again)) == (places.encoder, len(places))
    np.testing.assert_array_equal(again.nearest(places.vectors[3], 10), index.nearest(places.vectors[3], 10))


def test_an_index_of_another_encoder_or_a_torn_one_is_refused(places, index, tmp_path):
    with pytest.raises(FingerprintError, match="build it again"):
        dataclasses.replace(places, encoder="0" * 64).similar(cell=int(places.cells[0]), index=index)
    with pytest.raises(MissingTableError, match=r"none\.usearch"):
        LikenessIndex.open(tmp_path / "none.usearch")
    path = index.save(tmp_path / "torn.usearch")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ContractError, match="build the index again"):
        LikenessIndex.open(path)
    path = index.save(tmp_path / "other.usearch")
    LikenessIndex.of(make_places(rings=2)).save(tmp_path / "small.usearch")
    (tmp_path / "small.usearch").rename(path)
    with pytest.raises(ContractError, match="1,261 cells"):
        LikenessIndex.open(path)
