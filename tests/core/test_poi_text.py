import numpy as np
import pyarrow as pa
import pyarrow.csv

from mobclip_core.poi import category_counts, text_means
from mobclip_core.text import HashedNgramEncoder
from mobclip_core.vectors import matrix_of
from tests.poi_worlds import CELLS, HERE, aggregates, csv, point, source, world


def test_text_vector_is_the_weighted_mean_of_distinct_strings(tmp_path):
    rows = [point(HERE[0], name="Rose"), point(HERE[0], name=" ROSE "), point(HERE[0], "school", "Elm"), point(HERE[1])]
    result, table = aggregates(world(tmp_path, {"a": source(csv(tmp_path, rows))}))
    rose, elm, plain = HashedNgramEncoder(16).encode(["shop: rose", "school: elm", "shop"]).astype(float)
    vectors = matrix_of(table["text_vector"])
    np.testing.assert_allclose(vectors[0], (2 * rose + elm) / 3, atol=1e-6)
    np.testing.assert_allclose(vectors[1], plain, atol=1e-6)
    assert not vectors[2:].any()
    assert result.counts["text_strings_distinct"] == 3


def test_each_distinct_string_is_encoded_once(monkeypatch):
    seen = []

    class Encoder(HashedNgramEncoder):
        def encode(self, strings):
            seen.extend(strings)
            return super().encode(strings)

    monkeypatch.setattr("mobclip_core.poi._STRINGS_AT_ONCE", 2)
    cells = np.array(CELLS, dtype=np.uint64)
    texts = pa.table(
        {
            "cell": pa.array([CELLS[0], CELLS[0], CELLS[1], CELLS[2], CELLS[2]], pa.uint64()),
            "text": ["b", "a", "A ", "c", "a"],
            "weight": [1.0, 1.0, 2.0, 1.0, 3.0],
        }
    )
    means, counts = text_means(cells, texts, Encoder(8))
    assert seen == ["a", "b", "c"]
    assert counts == {"text_strings_total": 5, "text_strings_distinct": 3}
    a, b, c = HashedNgramEncoder(8).encode(["a", "b", "c"])
    np.testing.assert_allclose(means[:3], [(a + b) / 2, a, (3 * a + c) / 4], atol=1e-6)
    assert not means[3:].any()


def test_category_counts_fills_a_matrix():
    cells = np.array([3, 5, 9], dtype=np.uint64)
    rows = pa.table({"cell": pa.array([9, 3], pa.uint64()), "category": [1, 0], "count": [2.5, 1.0]})
    assert category_counts(cells, rows, 2).tolist() == [[1, 0], [0, 0], [0, 2.5]]
