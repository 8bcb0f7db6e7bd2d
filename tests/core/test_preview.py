import numpy as np
import pyarrow as pa

from mobclip_core.preview import first_rows
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import vector_column


def table(rows):
    cells = np.arange(rows, dtype=np.uint64) + 0x861A5064FFFFFFF
    return pa.table(
        {
            "cell": cells,
            "vector": vector_column(np.ones((rows, 8), dtype=np.float32) / 3),
            "encoder": pa.array(["a" * 64] * rows, pa.string()),
            "source": pa.array(["graph"] * rows, pa.string()),
            **{f"has_{name}": np.ones(rows, dtype=bool) for name in ("mobility", "poi", "imagery", "census")},
        }
    )


def test_first_rows_are_short_and_cells_hexadecimal(tmp_path):
    store, ref = Store(str(tmp_path)), TableRef("embeddings", "r")
    store.write(ref, table(9))
    lines = first_rows(store, ref, rows=2).splitlines()
    assert lines[0] == "| cell | vector | encoder | source | has_mobility | has_poi | has_imagery | has_census |"
    assert len(lines) == 4
    vector = "[0.33333, 0.33333, 0.33333, ... 8]"
    assert lines[2].startswith(f"| 861a5064fffffff | {vector} | aaaaaaaaaaaa... | graph | True |")


def test_an_empty_table_has_a_header_only(tmp_path):
    store, ref = Store(str(tmp_path)), TableRef("embeddings", "r")
    store.write(ref, table(0))
    assert len(first_rows(store, ref).splitlines()) == 2
