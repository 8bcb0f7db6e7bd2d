import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.contracts import CELL, CONTRACTS, VECTOR
from mobclip_core.quality import statistics, table_statistics
from mobclip_core.table_contract import Column, TableContract
from mobclip_core.tensors import tensor_column
from mobclip_core.vectors import vector_column

CONTRACT = TableContract(
    "numbers",
    "A row.",
    (
        Column("cell", CELL, ""),
        Column("amount", pa.float64(), "", minimum=0.0, nullable=True),
        Column("place", pa.float64(), "", nullable=True),
        Column("flag", pa.bool_(), ""),
        Column("label", pa.string(), "", nullable=True),
        Column("vector", VECTOR, "", vector=True),
    ),
    ("cell",),
)


def table(amounts, cells=None, vectors=None) -> pa.Table:
    n = len(amounts)
    cells = np.arange(n) if cells is None else cells
    vectors = np.array([[a or 0, 1.0, -1.0] for a in amounts], dtype=np.float32).reshape(n, 3)
    return pa.table(
        {
            "cell": pa.array(cells, pa.uint64()),
            "amount": pa.array(amounts, pa.float64()),
            "place": pa.array([-a if a is not None else None for a in amounts], pa.float64()),
            "flag": pa.array([bool(a) for a in amounts], pa.bool_()),
            "label": pa.array(["x" if a else None for a in amounts], pa.string()),
            "vector": vector_column(vectors),
        }
    )


def summed_up(whole: pa.Table, batch_rows: int = 1000, contract: TableContract = CONTRACT):
    def read(columns):
        for start in range(0, max(whole.num_rows, 1), batch_rows):
            yield whole.select(list(columns)).slice(start, batch_rows)

    return table_statistics(contract, read)


def test_the_numbers_of_a_small_table():
    found = summed_up(table([0.0, 1.0, 2.0, None, float("nan"), 5.0, 0.0, 0.0]))
    assert found["rows"] == 8
    amount = found["columns"]["amount"]
    assert (amount["nulls"], amount["zeros"], amount["total"]) == (0.25, 0.375, 8.0)
    assert amount["quantiles"][0] == 0.0
    assert amount["quantiles"][statistics.STEPS // 2] == 0.0
    assert amount["quantiles"][-1] == 5.0
    assert "total" not in found["columns"]["place"]
    assert found["columns"]["flag"]["zeros"] == 0.5
    assert found["columns"]["label"] == {"nulls": 0.5}
    assert found["columns"]["cell"] == {"nulls": 0.0}
    vector = found["columns"]["vector"]
    assert (vector["nulls"], vector["zeros"]) == (0.125, 0.0)
    assert vector["mean"][1:] == [1.0, -1.0]
    assert vector["deviation"][1:] == [0.0, 0.0]


def test_an_empty_table_has_numbers():
    found = summed_up(table([]))
    assert found["rows"] == 0
    assert found["columns"]["amount"] == {"nulls": 0.0, "zeros": 0.0, "total": 0.0, "quantiles": [], "sampled": 1.0}
    assert found["columns"]["vector"]["quantiles"] == []


def test_vectors_that_are_null_are_counted():
    whole = table([1.0, 2.0])
    nulls = pa.array([[1.0, 2.0, 2.0], None], pa.list_(pa.float32(), 3))
    found = summed_up(whole.set_column(5, "vector", nulls))["columns"]["vector"]
    assert found["nulls"] == 0.5
    assert found["quantiles"] == [3.0] * (statistics.STEPS + 1)


@given(
    st.lists(st.none() | st.floats(0, 1e12, allow_subnormal=False) | st.just(float("nan")), max_size=60),
    st.integers(1, 17),
    st.randoms(use_true_random=False),
)
def test_neither_the_order_of_rows_nor_the_batches_change_a_number(amounts, batch_rows, random):
    whole = table(amounts)
    order = list(range(len(amounts)))
    random.shuffle(order)
    assert summed_up(whole.take(pa.array(order, pa.int64())), batch_rows) == summed_up(whole)


def test_a_sample_is_the_same_whatever_the_order_and_speaks_for_the_whole(monkeypatch):
    random = np.random.default_rng(0)
    amounts = random.lognormal(size=40_000)
    whole = table(list(amounts), cells=random.permutation(10**6)[:40_000])
    everything = summed_up(whole)
    monkeypatch.setattr(statistics, "_LARGEST_SAMPLE", 10_000)
    found = summed_up(whole)
    assert found == summed_up(whole.take(pa.array(random.permutation(40_000))), 777)
    for name, share in (("amount", 0.25), ("vector", 0.0625)):
        column, expected = found["columns"][name], everything["columns"][name]
        assert column["sampled"] == share
        middle = statistics.STEPS // 2
        assert column["quantiles"][middle] == pytest.approx(expected["quantiles"][middle], rel=0.08)
    # of all rows
    assert found["columns"]["amount"]["total"] == everything["columns"]["amount"]["total"]


def test_totals_of_sampled_vectors_are_scaled(monkeypatch):
    contract = TableContract(
        "t", "", (Column("cell", CELL, ""), Column("v", VECTOR, "", minimum=0.0, vector=True)), ("cell",)
    )
    whole = pa.table({"cell": pa.array(range(50_000), pa.uint64()), "v": vector_column(np.ones((50_000, 2), "f4"))})
    monkeypatch.setattr(statistics, "_LARGEST_SAMPLE", 10_000)
    assert summed_up(whole, contract=contract)["columns"]["v"]["total"] == pytest.approx(100_000, rel=0.05)


def test_patches_of_bytes_are_vectors():
    contract = CONTRACTS["imagery_patches"]
    patches = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    whole = pa.table(
        {"cell": pa.array([1, 2], pa.uint64()), "patch": tensor_column(patches), "valid_fraction": [1.0, 0.0]}
    )
    found = summed_up(whole, contract=contract)["columns"]["patch"]
    assert len(found["mean"]) == 48
    assert found["mean"][0] == 24.0


def test_the_widest_table_stays_small():
    rows = 500
    vectors = np.random.default_rng(0).normal(size=(rows, 1024)).astype(np.float32)
    whole = pa.table(
        {
            "cell": pa.array(range(rows), pa.uint64()),
            "poi_count": pa.array(vectors[:, 0].astype(np.float64) ** 2 * 1234.567),
            "counts": vector_column(vectors[:, :445] ** 2),
            "text_vector": vector_column(vectors),
        }
    )
    found = summed_up(whole, contract=CONTRACTS["poi_aggregates"])
    assert len(json.dumps(found)) < 10_000
    assert json.loads(json.dumps(found, allow_nan=False)) == found
