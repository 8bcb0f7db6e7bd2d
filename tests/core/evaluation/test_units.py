import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

from mobclip_core.contracts import GEOBENCH_LABELS
from mobclip_core.errors import ContractError
from mobclip_core.evaluation.units import unit_sets


def labels(rows, scale="cell"):
    columns = [[row[i] for row in rows] for i in range(5)]
    task, unit, target, cells, weights = columns
    n = len(rows)
    table = pa.table(
        [task, unit, [scale] * n, target, target, [0.0] * n, [0.0] * n, cells, weights],
        names=GEOBENCH_LABELS.schema().names,
    )
    return table.cast(GEOBENCH_LABELS.schema())


def test_tasks_with_the_same_units_form_one_set():
    cells = np.array([10, 20, 30], dtype=np.uint64)
    rows = [(code, unit, value, [c], [1.0]) for code in "AB" for unit, value, c in (("u", 1.0, 10), ("v", 2.0, 30))]
    rows += [("C", "w", 5.0, [10, 20], [0.25, 0.75])]
    both, single = unit_sets(labels(rows), cells)
    assert both.tasks == ("A", "B")
    np.testing.assert_array_equal(both.targets, [[1, 1], [2, 2]])
    np.testing.assert_array_equal(both.weights.toarray(), [[1, 0, 0], [0, 0, 1]])
    assert single.tasks == ("C",)
    assert isinstance(single.weights, csr_array)
    np.testing.assert_array_equal(single.weights.toarray(), [[0.25, 0.75, 0]])
    assert single.centres.tolist() == [20]
    with pytest.raises(ContractError, match="labels of C refer to 1 cells that are not in the grid"):
        unit_sets(labels([("C", "w", 5.0, [10, 25], [0.5, 0.5])]), cells)


def test_the_version_of_a_label_follows_its_values_and_its_cells():
    cells = np.array([10, 20, 30], dtype=np.uint64)

    def version(value, cell, scale="cell"):
        (units,) = unit_sets(labels([("A", "u", value, [cell], [1.0])], scale), cells)
        assert units.scale == scale
        return units.versions[0]

    assert version(1.0, 10) == version(1.0, 10)
    assert len({version(1.0, 10), version(2.0, 10), version(1.0, 20)}) == 3
    assert version(1.0, 10, "county") == version(1.0, 10)
