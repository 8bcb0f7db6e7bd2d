import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.poi import check_poi_suppression
from mobclip_core.text import HashedNgramEncoder
from mobclip_core.vectors import matrix_of
from tests import lake as lakes
from tests.poi_worlds import HERE, THERE, aggregates, counts_of, csv, point, source


def suppressing(folder, minimum, rows):
    poi = {"categories": ["shop", "school"], "points": {"a": source(csv(folder, rows))}, "minimum_count": minimum}
    lake = lakes.deployment(folder, ["here", "there"], poi=poi | {"text": {"dimensions": 16}})
    lakes.write_grid(lake, "here", HERE)
    lakes.write_grid(lake, "there", THERE)
    return lake


def test_small_counts_are_suppressed_with_their_texts(tmp_path):
    rows = [point(HERE[0], "shop", "Rose")] * 3 + [point(HERE[0], "school", "Elm")] * 2 + [point(HERE[1], "odd", "X")]
    lake = suppressing(tmp_path, 3, rows)
    result, table = aggregates(lake)
    assert counts_of(table)[HERE[0]] == [3, 0, 0]
    assert table["poi_count"].to_pylist() == [3, 0, 0, 0]
    np.testing.assert_allclose(
        matrix_of(table["text_vector"])[0], HashedNgramEncoder(16).encode(["shop: rose"])[0], atol=1e-6
    )
    assert not matrix_of(table["text_vector"])[1].any()
    assert [result.counts[f"suppressed_{name}"] for name in ("counts", "cells", "pois")] == [2, 2, 3]
    shown = result.markdown["Suppressed POIs by category"]
    assert "| school | 1 | 2.0 |" in shown
    assert "| other | 1 | 1.0 |" in shown
    assert check_poi_suppression(lake, "here").passed


def test_without_a_minimum_nothing_is_suppressed(tmp_path):
    result, table = aggregates(suppressing(tmp_path, 0, [point(HERE[0])]))
    assert table["poi_count"].to_pylist() == [1, 0, 0, 0]
    assert not [name for name in result.counts if name.startswith("suppressed")]


def test_the_check_finds_counts_below_the_minimum(tmp_path):
    aggregates(suppressing(tmp_path, 0, [point(HERE[0]), point(HERE[1]), point(HERE[1])]))
    outcome = check_poi_suppression(suppressing(tmp_path, 2, []), "here")
    assert not outcome.passed
    assert outcome.numbers == {"small_counts": 1, "cells": 1, "minimum": 2}
    assert "1 counts in 1 cells are below the minimum of 2" in outcome.message


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40), st.integers(0, 6))
def test_no_count_is_above_zero_and_below_the_minimum(tmp_path_factory, points, minimum):
    rows = [point(HERE[cell], ["shop", "school", "x"][category]) for cell, category in points]
    lake = suppressing(tmp_path_factory.mktemp("suppress"), minimum, rows)
    result, table = aggregates(lake)
    counts = matrix_of(table["counts"])
    assert not ((counts > 0) & (counts < minimum)).any()
    assert counts.sum() + result.counts.get("suppressed_pois", 0) == len(points)
