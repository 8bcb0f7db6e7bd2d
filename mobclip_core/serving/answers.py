"""Answers: vectors with what they are made of.

Belongs here: the record of an answer and its table. Does not belong here: finding the cells (see `places`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mobclip_core.vectors import vector_column

MODALITIES = ("mobility", "poi", "imagery", "census")
"""In the order of the columns of `Answers.modalities`."""


@dataclass(frozen=True)
class Answers:
    """One vector for each place asked for, in the order of asking.

    A place without any cell of the lake has NaN in its vector and 0 elsewhere.

    Args:
        vectors: float32, shape (n, d).
        cells: The cell that the place lies in, or 0 where the answer is made of several or none; uint64, shape (n,).
        cell_count: How many cells the answer is made of, int64, shape (n,).
        covered: Fraction of the place that lies in cells of the lake, shape (n,).
        graph: Share of the weight of cells whose vector is the graph's; the student's are the rest. Shape (n,).
        modalities: Share of the weight of cells that have each of `MODALITIES`, shape (n, 4).
        encoder: Fingerprint of the encoder behind all of them.
    """

    vectors: np.ndarray
    cells: np.ndarray
    cell_count: np.ndarray
    covered: np.ndarray
    graph: np.ndarray
    modalities: np.ndarray
    encoder: str

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def found(self) -> np.ndarray:
        """Whether there is a vector, bool, shape (n,)."""
        return np.asarray(self.cell_count > 0)

    def table(self, **columns: Any) -> pa.Table:
        """The answers as an Arrow table; rows without a vector have null there.

        Args:
            columns: Columns to put first, each of length n.
        """
        vectors = vector_column(self.vectors)
        missing = pa.array(~self.found)
        vectors = pa.FixedSizeListArray.from_arrays(vectors.values, vectors.type.list_size, mask=missing)
        table = pa.table(
            {
                **columns,
                "vector": vectors,
                "cell": pa.array(self.cells, mask=self.cells == 0),
                "cells": self.cell_count,
                "covered": self.covered,
                "graph": self.graph,
                **{f"has_{name}": self.modalities[:, i] for i, name in enumerate(MODALITIES)},
            }
        )
        return table.replace_schema_metadata({"encoder": self.encoder})
