"""An approximate index of a lake's vectors, for lakes too large to compare a place with every cell.

Belongs here: the index and its file. Does not belong here: the answer, whose likenesses are exact (see
`Places.similar`).

The index is a graph of near neighbours (HNSW: Malkov and Yashunin 2018, https://arxiv.org/abs/1603.09320) by the
library USearch, which the extra `index` installs, on vectors of length 1 in 8 bits.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobclip_core.errors import ContractError, MissingTableError, MobclipError

if TYPE_CHECKING:
    from mobclip_core.serving.places import Places

_CONNECTIVITY, _EXPANSION_ADD, _EXPANSION_SEARCH = 16, 128, 128


class LikenessIndex:
    """Which cells are about most like a vector.

    Args:
        graph: USearch's index; its keys are H3 cells.
        encoder: Fingerprint of the encoder that made the vectors.
    """

    def __init__(self, graph: Any, encoder: str) -> None:
        self._graph, self.encoder = graph, encoder

    def __len__(self) -> int:
        return len(self._graph)

    @classmethod
    def of(cls, places: "Places") -> "LikenessIndex":
        """The index of a lake's vectors; it is built on all cores, and no two builds are quite the same.

        Raises:
            MobclipError: If USearch is not installed.
        """
        graph = _usearch().Index(
            ndim=places.dimensions,
            metric="cos",
            dtype="i8",
            connectivity=_CONNECTIVITY,
            expansion_add=_EXPANSION_ADD,
            expansion_search=_EXPANSION_SEARCH,
        )
        graph.add(places.cells, places.unit_vectors)
        return cls(graph, places.encoder)

    def nearest(self, vector: np.ndarray, count: int) -> np.ndarray:
        """About the most similar cells, uint64 (`count`,) or fewer.

        Args:
            vector: Shape (d,).
            count: How many.
        """
        return np.asarray(self._graph.search(np.asarray(vector, np.float32), min(count, len(self))).keys, np.uint64)

    def save(self, path: str | Path) -> Path:
        """Write the index, and beside it `<file>.json`, which says what it is of."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._graph.save(str(path))
        _about(path).write_text(json.dumps({"encoder": self.encoder, "cells": len(self)}) + "\n", encoding="utf-8")
        return path

    @classmethod
    def open(cls, path: str | Path) -> "LikenessIndex":
        """An index from its file, which is read as it is needed.

        Raises:
            MissingTableError: If there is no such file.
            ContractError: If it is cut short, or is not the one that the JSON file beside it tells of.
            MobclipError: If USearch is not installed.
        """
        path = Path(path)
        if not path.is_file() or not _about(path).is_file():
            raise MissingTableError(
                f"{path} and {_about(path).name} beside it: no index; LikenessIndex.save makes them"
            )
        about = json.loads(_about(path).read_text(encoding="utf-8"))
        try:
            graph = _usearch().Index.restore(str(path), view=True)
        except (RuntimeError, ValueError) as error:
            raise ContractError(f"{path} cannot be read ({error}); build the index again") from error
        if graph is None or len(graph) != about["cells"]:
            raise ContractError(f"{path} is not the index of {about['cells']:,} cells; build it again")
        return cls(graph, about["encoder"])


def _about(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _usearch() -> Any:
    try:
        from usearch import index
    except ModuleNotFoundError as error:
        raise MobclipError("an approximate index needs USearch: pip install 'mobclip[index]'") from error
    return index
