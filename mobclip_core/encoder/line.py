"""LINE: one vector for every node of the mobility graph, from the graph alone.

Belongs here: the objective and its gradients, the training on a GPU, the step that writes `node_embeddings`. Does not
belong here: the training on the CPU (see `line_blocks`), building the graph (see `mobility.graph`) and the training
that starts from these vectors (see `training`).

Source: Tang et al., "LINE: Large-scale Information Network Embedding", WWW 2015, section 4.1.2 and 4.2
(https://arxiv.org/abs/1503.03578). By the second order two cells are alike when people go from them to the same places,
by the first when people go from one to the other.
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
from mobclip_core.encoder.validation import training_graph
from mobclip_core.store import TableRef
from mobclip_core.vectors import vector_column

if TYPE_CHECKING:
    from mobclip_core.deployment import Deployment, StepResult
    from mobclip_core.profile import LineConfig

_NOISE_POWER = 0.75
_FINAL_RATE = 1e-4
"""The learning rate never falls below this fraction of the initial one (as in the authors' code)."""
_CURVE_POINTS = 50
_PASSES = (30, 100)

logger = logging.getLogger(__name__)


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
        vertex: float32 (N, d), rows of unit length; zeros where a node has no edge to learn from (second order: no
            outgoing one).
        context: float32 (N, d), as trained; of the first order the vertex table before it was scaled.
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


def noise_weights(graph: Graph) -> np.ndarray:
    """How often each node is drawn as noise, up to a factor: degree^0.75 (paper, section 4.1.2), float64 (N,)."""
    weights: np.ndarray = summed_degree(graph) ** _NOISE_POWER
    return weights


class _Curve:
    """The mean objective of a sample, in equal stretches of the training."""

    def __init__(self) -> None:
        self._sums, self._counts, self._logged = np.zeros(_CURVE_POINTS), np.zeros(_CURVE_POINTS), -1

    def add(self, share: float, objective: float, count: int) -> None:
        """Note the summed objective of some samples; `share` of the work is done."""
        point = min(int(share * _CURVE_POINTS), _CURVE_POINTS - 1)
        self._sums[point] += objective
        self._counts[point] += count
        if point * 10 // _CURVE_POINTS > self._logged and count:
            self._logged = point * 10 // _CURVE_POINTS
            logger.info("LINE: %.0f%%, objective %.4f", 100 * share, objective / count)

    def values(self) -> list[float]:
        """Up to 50 means, in their order."""
        seen = self._counts > 0
        return list((self._sums[seen] / self._counts[seen]).tolist())


def train_line(graph: Graph, config: "LineConfig", device: torch.device | None = None) -> LineResult:
    """Train LINE on all edges of a graph (its `keep` mask plays no part).

    Stochastic gradient descent on edges drawn by weight, with linear decay. On the CPU in blocks of the graph (see
    `line_blocks`); on a GPU in batches whose samples see the same tables, as the threads of the authors' code nearly
    do: so that no vertex takes many stale steps at once, a batch never exceeds the number of nodes.

    Args:
        graph: The mobility graph.
        config: Options. The order `both` trains either order at half the dimensions and sets them side by side
            (paper, section 4.1.3).
        device: Where the tables lie; the CPU if None.

    Returns:
        Vectors, the same for the same graph, options and kind of device.
    """
    device = device or torch.device("cpu")
    n = len(graph.cells)
    if not float(np.sum(graph.weight, dtype=np.float64)) > 0:
        zeros = np.zeros((n, config.dimensions), dtype=np.float32)
        return LineResult(zeros, zeros.copy(), [], 0, 0.0)
    orders = ["first", "second"] if config.order == "both" else [config.order]
    width = config.dimensions // len(orders)
    vectors, contexts, curve = [], [], _Curve()
    samples = max(1, min(int(config.samples_per_edge * len(graph.indices)), config.max_samples))
    started = time.perf_counter()
    for order in orders:
        train = _in_blocks if device.type == "cpu" else _in_batches
        vertex, context = train(graph, config, order == "first", width, samples, curve, device)
        vertex = torch.nn.functional.normalize(torch.from_numpy(vertex)).numpy()
        vertex[(summed_degree(graph) if order == "first" else out_degree(graph)) == 0] = 0
        vectors.append(vertex)
        contexts.append(context)
    seconds = time.perf_counter() - started
    vertex = np.concatenate(vectors, axis=1) / np.float32(np.sqrt(len(orders)))
    return LineResult(vertex, np.concatenate(contexts, axis=1), curve.values(), samples * len(orders), seconds)


def _initial(n: int, d: int, seed: int) -> torch.Tensor:
    return (torch.rand(n, d, generator=torch.Generator().manual_seed(seed)) - 0.5) / d


def _in_blocks(
    graph: Graph, config: "LineConfig", first: bool, d: int, samples: int, curve: _Curve, _: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    # numba takes a second to import
    from mobclip_core.encoder.line_blocks import train_blocks

    vertex = _initial(len(graph.cells), d, config.seed).numpy()
    context = vertex if first else np.zeros_like(vertex)
    train_blocks(
        graph,
        noise_weights(graph),
        vertex,
        context,
        samples=samples,
        # about one sample an edge in each, within bounds
        passes=int(np.clip(-(-samples // len(graph.indices)), *_PASSES)),
        negatives=config.negatives,
        rate=lambda share: config.learning_rate * max(1 - share, _FINAL_RATE),
        seed=config.seed,
        told=curve.add,
    )
    return vertex, context


def _in_batches(
    graph: Graph, config: "LineConfig", first: bool, d: int, samples: int, curve: _Curve, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    n = len(graph.cells)
    vertex = _initial(n, d, config.seed).to(device)
    context = vertex if first else torch.zeros_like(vertex)
    random = torch.Generator(device).manual_seed(config.seed)
    indptr, indices = (torch.from_numpy(np.array(part)).to(device) for part in (graph.indptr, graph.indices))
    edges = torch.cumsum(torch.from_numpy(np.array(graph.weight)).to(device, torch.float64), 0)
    noise = torch.cumsum(torch.from_numpy(noise_weights(graph)).to(device), 0)

    def draw(sums: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        wanted = torch.rand(size, generator=random, device=device, dtype=torch.float64) * sums[-1]
        # rounding at the upper end may step past the last item
        return torch.searchsorted(sums, wanted, right=True).clamp_(max=len(sums) - 1)

    batch = min(config.batch_size, n, samples)
    steps = -(-samples // batch)
    told, counted = torch.zeros((), device=device), 0
    with deterministic(device):
        for step in range(steps):
            size = min(batch, samples - step * batch)
            rate = config.learning_rate * max(1 - step * batch / samples, _FINAL_RATE)
            edge = draw(edges, (size,))
            source = torch.searchsorted(indptr, edge, right=True) - 1
            targets = torch.cat([indices[edge].long()[:, None], draw(noise, (size, config.negatives))], 1)
            objective, by_source, by_targets = line_gradients(vertex[source], context[targets])
            vertex.index_add_(0, source, by_source, alpha=-rate)
            context.index_add_(0, targets.reshape(-1), by_targets.reshape(-1, d), alpha=-rate)
            told, counted = told + objective, counted + size
            # a question to the device waits for all work before it
            if (step + 1) * _CURVE_POINTS // steps > step * _CURVE_POINTS // steps:
                curve.add(step / steps, float(told), counted)
                told, counted = torch.zeros((), device=device), 0
    return vertex.cpu().numpy(), context.cpu().numpy()


def build_node_embeddings(deployment: "Deployment") -> "StepResult":
    """Train LINE on the full mobility graph (see `validation` for what may be left out) and write `node_embeddings`.

    Raises:
        MissingTableError: If the mobility graph is not there yet.
    """
    from mobclip_core.deployment import StepResult
    from mobclip_core.mobility.graph import open_graph
    from mobclip_core.plots import loss_curves

    graph = training_graph(open_graph(deployment.store.bundle("mobility_graph")), deployment.profile.encoder)
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
