"""Training of the encoder.

Belongs here: what goes into the training and what comes out of it. Does not belong here: the loop (see `trainer`), the
modules and the losses, the step that writes the `encoder` bundle (see `building`), applying a trained encoder (see
`embedding`).
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.device import deterministic, resolve_device
from mobclip_core.encoder.features import ModalityFeatures
from mobclip_core.encoder.line import Graph
from mobclip_core.encoder.modules import MobCLIP, Tensors
from mobclip_core.encoder.position import fit_position
from mobclip_core.encoder.progress import Checkpoints
from mobclip_core.encoder.propagation import Adjacency, graph_adjacency, neighbour_edges
from mobclip_core.encoder.ranks import Ranks
from mobclip_core.encoder.readout import directions_of, fit_readout
from mobclip_core.encoder.tracking import Scalars
from mobclip_core.encoder.trainer import Trainer
from mobclip_core.errors import ContractError

if TYPE_CHECKING:
    from mobclip_core.profile import EncoderConfig

_ISOLATED_SCALE = 0.1
"""Length of the random start of a node that LINE knows nothing about: not zero (a cosine needs a direction), yet small
beside LINE's unit vectors."""

_EDGES_OF_A_NODE = 16

NOT_OF_THE_MODEL = ("checkpoint_minutes", "launcher", "processes", "tensorboard")
"""Options that say where and how, not what is trained."""


def feature_tensors(features: ModalityFeatures, dtype: torch.dtype = torch.float32) -> tuple[Tensors, Tensors]:
    """Values (N, D_m) and masks (N,) of each modality as tensors."""
    # copied into memory that torch aligned: on the CPU a product's last bit depends on alignment
    values = {name: torch.tensor(m.values, dtype=dtype) for name, m in features.modalities.items()}
    return values, {name: torch.from_numpy(m.mask) for name, m in features.modalities.items()}


def encoder_adjacency(
    graph: Graph, beside: torch.Tensor, config: "EncoderConfig", directed: bool, dtype: torch.dtype = torch.float32
) -> Adjacency:
    """The propagation matrix that the options ask for; `beside` are the edges between adjacent cells, (2, E)."""
    weight = config.spatial_edges_weight
    return graph_adjacency(graph, directed=directed, spatial=beside, spatial_weight=weight, dtype=dtype)


def initial_table(cells: np.ndarray, node_vectors: np.ndarray, seed: int) -> np.ndarray:
    """LINE's vectors, and small random ones where LINE has none (zero rows), which depend on the cell's rank alone.

    Args:
        cells: uint64 (N,).
        node_vectors: (N, d).
        seed: Seed of the random ones.

    Returns:
        float32 (N, d).
    """
    table = np.array(node_vectors, dtype=np.float32)
    n, d = table.shape
    random = np.random.default_rng(seed).normal(size=(n, d)) * _ISOLATED_SCALE / np.sqrt(d)
    rank = np.argsort(np.argsort(cells, kind="stable"), kind="stable")
    empty = ~table.any(axis=1)
    table[empty] = random[rank[empty]]
    return table


def _load(adjacency: Adjacency) -> np.ndarray:
    """About the work that a node means: its edges, and its vector, which costs as much as some edges."""
    return np.asarray(adjacency.matrix.crow_indices().diff().numpy() + _EDGES_OF_A_NODE)


def train(
    features: ModalityFeatures,
    graph: Graph,
    node_vectors: np.ndarray,
    config: "EncoderConfig",
    *,
    beside: torch.Tensor | None = None,
    directed: bool = True,
    dtype: torch.dtype = torch.float32,
    checkpoints: Checkpoints | None = None,
) -> TrainedEncoder:
    """Train the encoder, together with the other processes of `torch.distributed`'s default group if there is one.

    Args:
        features: Standardised features, in node order.
        graph: Mobility graph over the same cells.
        node_vectors: LINE vectors, (N, d); zero rows for nodes that LINE knows nothing about.
        config: Options.
        beside: Edges between adjacent cells, both ways, int64 (2, E); found from the cells' centres if None.
        directed: Keep the direction of flows in the propagation.
        dtype: Type of the computation.
        checkpoints: Where the training goes on from, and what it leaves for another one to go on from.

    Returns:
        The parameters of the epoch with the lowest validation loss; the same for the same arguments, and for nodes
        renumbered the same rows renumbered.

    Raises:
        ContractError: If features, graph and vectors are not about the same cells.
    """
    cells = np.asarray(graph.cells)
    if not np.array_equal(cells, features.cells):
        raise ContractError("mobility_graph and grid_cells have different cells; materialise mobility_graph again")
    if node_vectors.shape != (len(cells), config.dimensions):
        raise ContractError(
            f"node_embeddings is {node_vectors.shape}, expected {(len(cells), config.dimensions)}; line.dimensions "
            "must equal encoder.dimensions, and node_embeddings must be newer than mobility_graph"
        )
    device = resolve_device(config.device)
    widths = {name: m.values.shape[1] for name, m in features.modalities.items()}
    beside = neighbour_edges(features.lon, features.lat) if beside is None else beside
    adjacency = encoder_adjacency(graph, beside, config, directed, dtype)
    ranks = Ranks.of(_load(adjacency))
    own = ranks.nodes
    with torch.random.fork_rng(devices=[]), deterministic(device):
        torch.manual_seed(config.seed)
        model = MobCLIP(own.stop - own.start, widths, config, ranks).to(dtype)
        model.reset_parameters()
        with torch.no_grad():
            model.node_table.copy_(torch.from_numpy(ranks.own(initial_table(cells, node_vectors, config.seed))))
        model = model.to(device)
        values, masks = feature_tensors(features, dtype)
        values = {name: ranks.own(value).to(device) for name, value in values.items()}
        masks = {name: mask.to(device) for name, mask in masks.items()}
        if ranks.size > 1:
            adjacency = adjacency.stretch(own)
        trainer = Trainer(model, (values, masks), adjacency.to(device), cells, config, ranks)
        before = None if checkpoints is None else checkpoints.load()
        if before is not None:
            trainer.resume(before)
        with Scalars(config.tensorboard) as scalars:
            trainer.fit(None if checkpoints is None else checkpoints.save, scalars)
        state, history, best = trainer.best(), trainer.state.history, trainer.state.best
        if config.factors:
            parts = (features, beside.numpy(), trainer.vectors(), config.factors, config.seed)
            readout = fit_readout(*parts, spared=config.position_factors)
            state |= {f"readout.{name}": value for name, value in vars(readout).items()}
        if config.position_factors:
            directions = directions_of(config.dimensions, config.seed)[-config.position_factors :]
            position = fit_position(features.lon, features.lat, directions)
            state |= {f"position.{name}": value for name, value in vars(position).items()}
    for name, modality in features.modalities.items():
        state[f"statistics.{name}.mean"] = modality.statistics.mean
        state[f"statistics.{name}.scale"] = modality.statistics.scale
    described = {
        "encoder": config.model_dump(mode="json", exclude=set(NOT_OF_THE_MODEL)),
        "widths": widths,
        "directed": directed,
        "image_encoder": features.image_encoder,
        "inputs": {},
    }
    return TrainedEncoder(state, cells, described, history, best)
