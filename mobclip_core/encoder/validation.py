"""What the training does not see, so that its end can be chosen by it.

Belongs here: which cells are held out, and of what. Does not belong here: the loop that stops by them (see `trainer`).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mobclip_core.cells import are_cells, parents, resolution_of
from mobclip_core.encoder.subgraphs import graph_without

if TYPE_CHECKING:
    from mobclip_core.encoder.line import Graph
    from mobclip_core.profile import EncoderConfig


def validation_mask(cells: np.ndarray, config: "EncoderConfig") -> np.ndarray:
    """Cells of the spatial blocks held out for early stopping; which ones depends on the cells and the seed alone.

    Blocks are H3 parents at `validation_block_resolution`, or finer where that leaves fewer than two blocks. A single
    cell has no block to spare: nothing is held out. Nodes that are not H3 cells (zones, say) are blocks of one.

    Returns:
        bool (N,).
    """
    for block_of in _blocks(cells, config.validation_block_resolution):
        blocks = np.unique(block_of)
        if len(blocks) > 1:
            held = max(1, min(len(blocks) - 1, round(config.validation_fraction * len(blocks))))
            chosen = np.random.default_rng(config.seed).permutation(len(blocks))[:held]
            return np.isin(block_of, blocks[chosen])
    return np.zeros(len(cells), dtype=bool)


def _blocks(cells: np.ndarray, coarsest: int) -> Iterator[np.ndarray]:
    """The block of each cell, from coarse to fine, (N,)."""
    if not are_cells(cells):
        yield cells
        return
    finest = int(resolution_of(cells).min()) if len(cells) else 0
    for resolution in range(min(coarsest, finest), finest + 1):
        yield parents(cells, resolution)


def training_graph(graph: "Graph", config: "EncoderConfig") -> "Graph":
    """The graph that LINE and the encoder are trained on: with `inductive`, without the edges of the cells held out.

    Args:
        graph: The mobility graph.
        config: Options.
    """
    if config.validation != "inductive":
        return graph
    return graph_without(graph, validation_mask(np.asarray(graph.cells), config))
