"""LightGCN alone: vectors of the mobility graph's nodes that tell which cells people go between. A baseline.

Belongs here: its training. Does not belong here: the propagation, which the encoder has too (see `propagation`).

Source: He et al., "LightGCN", SIGIR 2020 (https://arxiv.org/abs/2002.02126): a table of vectors as the only parameters,
Bayesian personalised ranking (equation 15) on whole-graph vectors.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import softplus

from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.encoder.line import Graph
from mobclip_core.encoder.line_blocks import Edges, draw
from mobclip_core.encoder.propagation import LightGCN, graph_adjacency

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig

STEPS = 300
_BATCH_SHARE = 1 / 8
_LARGEST_BATCH = 65_536
_RATE = 5e-3
_START = 0.1
_PENALTY = 1e-4


def train_lightgcn(graph: Graph, config: "EncoderConfig", directed: bool) -> np.ndarray:
    """Vectors of all nodes, float32 (N, d), the same for the same arguments; zeros where the graph has no edge.

    A step draws edges by their weight, and for each a node at random that the source is to be farther from.

    Args:
        graph: Mobility graph.
        config: Dimensions, layers, seed and device.
        directed: Whether the propagation keeps the direction of flows.
    """
    n, device = len(graph.cells), resolve_device(config.device)
    if not len(graph.indices):
        return np.zeros((n, config.dimensions), np.float32)
    adjacency = graph_adjacency(graph, directed=directed).to(device)
    random = np.random.default_rng(config.seed)
    edges = Edges.of(graph, np.ones(n))
    batch = int(np.clip(len(graph.indices) * _BATCH_SHARE, 1, _LARGEST_BATCH))
    backbone = LightGCN(config.layers)
    start = torch.randn(n, config.dimensions, generator=torch.Generator().manual_seed(config.seed))
    table = torch.nn.Parameter((start * _START).to(device))
    optimiser = torch.optim.Adam([table], lr=_RATE)
    with deterministic(device):
        for _ in range(STEPS):
            ends = [*draw(edges, batch, random), random.integers(0, n, batch)]
            source, target, other = (torch.from_numpy(nodes.astype(np.int64)).to(device) for nodes in ends)
            optimiser.zero_grad()
            z = backbone(table, adjacency) / (config.layers + 1)
            ahead = (z[source] * (z[target] - z[other])).sum(1)
            own = sum(table[nodes].pow(2).sum() for nodes in (source, target, other)) / (2 * batch)
            loss = softplus(-ahead).mean() + _PENALTY * own
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            z = backbone(table, adjacency) / (config.layers + 1)
    touched = np.diff(graph.indptr) > 0
    touched[graph.indices] = True
    return np.asarray(z.cpu().numpy() * touched[:, None], dtype=np.float32)
