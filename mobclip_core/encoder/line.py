"""LINE, second order: one vector for every node of the mobility graph, from the graph alone.

Belongs here: the objective, its sampling and its gradients, and the step that writes `node_embeddings`. Does not belong
here: building the graph (see `mobility.graph`) and the training that starts from these vectors (see `training`).

Source: Tang et al., "LINE: Large-scale Information Network Embedding", WWW 2015, section 4.1.2 and 4.2
(https://arxiv.org/abs/1503.03578). Two cells are alike when people go from them to the same places.
"""

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import logsigmoid

from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.store import TableRef
from mobclip_core.vectors import vector_column

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment, StepResult
    from mobclip_core.profile import LineConfig

_NOISE_POWER = 0.75
_FINAL_RATE = 1e-4
"""The learning rate never falls below this fraction of the initial one (as in the authors' code)."""
_CURVE_POINTS = 50


class Graph(Protocol):
    """A weighted directed graph in CSR form: `mobility.graph.MobilityGraph`, or anything shaped like it.

    Shapes: `cells` uint64 (N,), `indptr` int64 (N + 1,), `indices` int32 (E,), `weight` float32 (E,), `keep` bool (E,);
    row = source node.
    """

    @property
    def cells(self) -> np.ndarray: ...  # noqa: D102
    @property
    def indptr(self) -> np.ndarray: ...  # noqa: D102
    @property
    def indices(self) -> np.ndarray: ...  # noqa: D102
    @property
    def weight(self) -> np.ndarray: ...  # noqa: D102
    @property
    def keep(self) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class LineResult:
    """Trained LINE vectors.

    Args:
        vertex: float32 (N, d), rows of unit length; zeros where a node has no outgoing edge to learn from.
        context: float32 (N, d), as trained.
        loss: Mean objective a positive sample, in up to 50 equal stretches of the training.
        samples: Positive samples drawn.
        seconds: Wall-clock time of the training.
    """

    vertex: np.ndarray
    context: np.ndarray
    loss: list[float]
    samples: int
    seconds: float


def line_objective(
    vertex: torch.Tensor, context: torch.Tensor, edges: torch.Tensor, weights: torch.Tensor, negatives: torch.Tensor
) -> torch.Tensor:
    r"""The sampled second-order objective, to be minimised (equation 7 of the paper, weighted and negated).

    .. math::
        -\sum_{(i,j)} w_{ij} \Big[ \log\sigma(\vec u_j'^\top \vec u_i)
        + \sum_{k=1}^{K} \log\sigma(-\vec u_{n_k}'^\top \vec u_i) \Big]

    Args:
        vertex: Vertex table, (N, d).
        context: Context table, (N, d).
        edges: Source and target nodes, int64 (B, 2).
        weights: Edge weights, (B,).
        negatives: Noise nodes, int64 (B, K).

    Returns:
        Scalar of the tables' type.
    """
    source = vertex[edges[:, 0]]
    positive = (source * context[edges[:, 1]]).sum(1)
    noise = torch.einsum("bd,bkd->bk", source, context[negatives])
    return -(weights * (logsigmoid(positive) + logsigmoid(-noise).sum(1))).sum()


def line_gradients(source: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The objective of a batch of edges of weight 1 and its gradients, by hand.

    Args:
        source: Vertex vectors of the sources, (B, d).
        targets: Context vectors of the true target (first) and the K noise nodes, (B, 1 + K, d).

    Returns:
        The summed objective (scalar), its gradient by `source` (B, d) and by `targets` (B, 1 + K, d).
    """
    logits = torch.bmm(targets, source.unsqueeze(2)).squeeze(2)
    # d/dx of -log sigma(x) is sigma(x) - 1; of -log sigma(-x) it is sigma(x)
    slope = torch.sigmoid(logits)
    slope[:, 0] -= 1
    objective = -(logsigmoid(logits[:, 0]).sum() + logsigmoid(-logits[:, 1:]).sum())
    return objective, torch.bmm(slope.unsqueeze(1), targets).squeeze(1), slope.unsqueeze(2) * source.unsqueeze(1)


def summed_degree(graph: Graph) -> np.ndarray:
    """Weight of all edges that leave or reach each node.

    Returns:
        float64, shape (N,).
    """
    n = len(graph.cells)
    weight = np.asarray(graph.weight, dtype=np.float64)
    # without edges bincount forgets the type of the weights
    incoming = np.bincount(graph.indices, weights=weight, minlength=n).astype(np.float64)
    return out_degree(graph) + incoming


def out_degree(graph: Graph) -> np.ndarray:
    """Weight of all edges that leave each node, float64 (N,)."""
    n = len(graph.cells)
    source = np.repeat(np.arange(n), np.diff(graph.indptr))
    weight = np.asarray(graph.weight, dtype=np.float64)
    return np.bincount(source, weights=weight, minlength=n).astype(np.float64)


class _Sampler:
    """Edges drawn in proportion to their weight, noise nodes in proportion to degree^0.75."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._indptr = np.asarray(graph.indptr)
        self._indices = np.asarray(graph.indices)
        self._edges = np.cumsum(graph.weight, dtype=np.float64)
        self._noise = np.cumsum(summed_degree(graph) ** _NOISE_POWER)

    def _draw(self, cumulative: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
        found = np.searchsorted(cumulative, self._random.random(size) * cumulative[-1], side="right")
        # rounding at the upper end may step past the last item
        drawn: np.ndarray = np.minimum(found, len(cumulative) - 1)
        return drawn

    def batch(self, size: int, negatives: int) -> tuple[np.ndarray, np.ndarray]:
        """Sources (B,) and targets (B, 1 + K): the true one first."""
        edge = self._draw(self._edges, size)
        source = np.searchsorted(self._indptr, edge, side="right") - 1
        targets = np.column_stack([self._indices[edge].astype(np.int64), self._draw(self._noise, (size, negatives))])
        return source, targets


def train_line(graph: Graph, config: "LineConfig", device: torch.device | None = None) -> LineResult:
    """Train LINE on all edges of a graph (its `keep` mask plays no part).

    Stochastic gradient descent on sampled edges with linear decay. The samples of a batch see the same tables (as the
    threads of the authors' code nearly do); so that no vertex takes many stale steps at once, a batch never exceeds
    the number of nodes.

    Args:
        graph: The mobility graph.
        config: Options.
        device: Where the tables lie; the CPU if None.

    Returns:
        Vectors, the same for the same graph, options and device.
    """
    device = device or torch.device("cpu")
    n, d = len(graph.cells), config.dimensions
    context = torch.zeros(n, d, device=device)
    if not float(np.sum(graph.weight, dtype=np.float64)) > 0:
        zeros = np.zeros((n, d), dtype=np.float32)
        return LineResult(zeros, zeros.copy(), [], 0, 0.0)
    generator = torch.Generator().manual_seed(config.seed)
    vertex = ((torch.rand(n, d, generator=generator) - 0.5) / d).to(device)
    sampler = _Sampler(graph, config.seed)
    samples = max(1, min(int(config.samples_per_edge * len(graph.indices)), config.max_samples))
    batch = min(config.batch_size, n, samples)
    steps = -(-samples // batch)
    curve = np.zeros(min(_CURVE_POINTS, steps))
    drawn = np.zeros_like(curve)
    started = time.perf_counter()
    with deterministic(device):
        for step in range(steps):
            size = min(batch, samples - step * batch)
            rate = config.learning_rate * max(1 - step * batch / samples, _FINAL_RATE)
            source, targets = (torch.from_numpy(x).to(device) for x in sampler.batch(size, config.negatives))
            objective, by_source, by_targets = line_gradients(vertex[source], context[targets])
            vertex.index_add_(0, source, by_source, alpha=-rate)
            context.index_add_(0, targets.reshape(-1), by_targets.reshape(-1, d), alpha=-rate)
            point = step * len(curve) // steps
            curve[point] += float(objective)
            drawn[point] += size
            if step % max(1, steps // 10) == 0:
                logging.getLogger(__name__).info(
                    "LINE: step %d of %d, objective %.4f", step, steps, float(objective) / size
                )
    seconds = time.perf_counter() - started
    vectors = torch.nn.functional.normalize(vertex).cpu().numpy()
    vectors[out_degree(graph) == 0] = 0
    return LineResult(vectors, context.cpu().numpy(), list(curve / drawn), samples, seconds)


def build_node_embeddings(deployment: "Deployment") -> "StepResult":
    """Train LINE on the full mobility graph and write `node_embeddings`.

    Raises:
        MissingTableError: If the mobility graph is not there yet.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.mobility.graph import open_graph
    from mobclip_core.plots import loss_curves

    graph = open_graph(deployment.store.bundle("mobility_graph"))
    result = train_line(graph, deployment.profile.line, resolve_device(deployment.profile.encoder.device))
    degree = summed_degree(graph)
    table = pa.table({"cell": np.asarray(graph.cells), "vector": vector_column(result.vertex), "degree": degree})
    written = deployment.store.write(TableRef("node_embeddings"), table)
    counts: dict[str, int | float | str] = {
        "nodes": len(degree),
        "isolated_nodes": int((degree == 0).sum()),
        "nodes_without_outgoing_edges": int((out_degree(graph) == 0).sum()),
        "edges": len(graph.indices),
        "samples": result.samples,
        "samples_per_second": round(result.samples / result.seconds) if result.seconds else 0,
        "loss_first": round(result.loss[0], 6) if result.loss else 0.0,
        "loss_last": round(result.loss[-1], 6) if result.loss else 0.0,
    }
    pictures = {"LINE objective": loss_curves({"objective": result.loss}, "LINE objective")} if result.loss else {}
    return StepResult(written, counts, pictures)
