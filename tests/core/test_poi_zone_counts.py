import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.errors import MissingTableError, SourceError
from mobclip_core.store import TableRef
from mobclip_core.text import HashedNgramEncoder
from mobclip_core.vectors import matrix_of
from tests import lake as lakes
from tests.poi_worlds import HERE, THERE, aggregates, counts_of, csv, world


def zone_source(file, **more):
    return {
        "file": file,
        "zones": "tracts",
        "id_column": "zone",
        "category_column": "category",
        "count_column": "count",
    } | more


def zone_csv(folder, rows):
    return csv(folder, rows, header="zone,category,count", name="zones.csv")


def zone_world(folder, rows, tracts=None, **more):
    lake = world(folder, zone_counts={"z": zone_source(zone_csv(folder, rows), **more)})
    zones = {"007": {HERE[0]: 0.25, HERE[1]: 0.75}, "008": {HERE[1]: 1.0}}
    lakes.write_zones(lake, "here", {"tracts": tracts or zones, "blocks": {"b": {HERE[0]: 0.5, HERE[1]: 0.5}}})
    lakes.write_zones(lake, "there", {"tracts": {"009": {THERE[0]: 1.0}}})
    return lake


def test_zone_counts_spread_by_the_weights_of_the_census_layer(tmp_path):
    rows = [("007", "shop", 8), ("008", "shop", 1), ("008", "church", 2), ("009", "shop", 5)]
    lake = zone_world(tmp_path, rows)
    result, table = aggregates(lake)
    assert counts_of(table) == {HERE[0]: [2, 0, 0], HERE[1]: [7, 0, 2], HERE[2]: [0, 0, 0], HERE[3]: [0, 0, 0]}
    assert result.counts["pois"] == 11
    assert result.counts["zone_rows_in_region"] == 3
    assert result.counts["zone_rows_in_other_regions"] == 1
    assert aggregates(lake, "there")[0].counts["pois"] == 5


def test_bad_zone_rows_are_counted(tmp_path):
    rows = [
        ("007", "shop", 8),
        ("777", "shop", 1),
        ("", "shop", 1),
        ("007", "shop", -3),
        ("007", "shop", None),
        ("007", "shop", "inf"),
    ]
    result, table = aggregates(zone_world(tmp_path, rows))
    assert result.counts["zone_rows_read"] == 6
    assert result.counts["zone_rows_without_zone"] == 2
    assert result.counts["zone_rows_bad_count"] == 3
    assert result.counts["zone_rows_in_region"] == 1
    assert table["poi_count"].to_pylist() == [2, 6, 0, 0]


def test_zone_ids_that_never_match_are_an_error(tmp_path):
    lake = zone_world(tmp_path, [("7", "shop", 8), ("8", "shop", 8)])
    with pytest.raises(
        SourceError, match=r"zones\.csv: no row matches a zone of the layer 'tracts'.*'007', leading zeros"
    ):
        aggregates(lake)


def test_another_layer_spreads_by_population_density(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks")
    lakes.write_census(lake, "here", {HERE[0]: 100.0, HERE[1]: 200.0, HERE[2]: 50.0, HERE[3]: 0.0})
    result, table = aggregates(lake)
    areas = lake.store.read(TableRef("grid_cells", "here"))["area_km2"].to_numpy()
    density = np.array([100.0, 200.0]) / areas[:2]
    np.testing.assert_allclose(table["poi_count"].to_numpy()[:2], 6 * density / density.sum())
    assert result.counts["pois"] == pytest.approx(6, rel=1e-12)


def test_zones_where_nobody_lives_fall_back_to_area(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks")
    lakes.write_census(lake, "here", dict.fromkeys(HERE, 0.0))
    assert aggregates(lake)[1]["poi_count"].to_pylist() == [3, 3, 0, 0]


def test_spread_by_area_needs_no_census(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks", spread="area")
    assert aggregates(lake)[1]["poi_count"].to_pylist() == [3, 3, 0, 0]


def test_spread_by_population_without_census_names_what_is_missing(tmp_path):
    lake = zone_world(tmp_path, [("b", "shop", 6)], zones="blocks")
    with pytest.raises(MissingTableError, match=r"census_features\[here\]"):
        aggregates(lake)


def test_zone_text_is_the_category(tmp_path):
    lake = zone_world(tmp_path, [("008", "A", 2), ("008", "school", 2)], aliases={"A": "shop"})
    _, table = aggregates(lake)
    expected = HashedNgramEncoder(16).encode(["shop", "school"]).mean(axis=0)
    np.testing.assert_allclose(matrix_of(table["text_vector"])[1], expected, atol=1e-6)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e6)), min_size=1, max_size=8),
    st.lists(st.floats(0, 1e5), min_size=4, max_size=4),
)
def test_every_zones_count_arrives(tmp_path_factory, rows, people):
    folder = tmp_path_factory.mktemp("zones")
    lake = zone_world(folder, [("b", ["shop", "school", "x", "y"][c], n) for c, n in rows], zones="blocks")
    lakes.write_census(lake, "here", dict(zip(HERE, people, strict=True)))
    result, _ = aggregates(lake)
    assert result.counts["pois"] == pytest.approx(math.fsum(n for _, n in rows), rel=1e-9)
