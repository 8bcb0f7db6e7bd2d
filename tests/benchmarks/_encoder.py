"""What the encoder's benchmarks share: a generated graph and features, and the published step written plainly."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from mobclip_core.encoder.propagation import Adjacency, adjacency_of

WIDTHS = {"poi": 96, "census": 39, "imagery": 512}
TEMPERATURES = {"poi": 0.5, "census": 0.7, "imagery": 0.2}


def country(nodes: int, edges: int, seed: int = 0) -> Adjacency:
    """A directed graph over nodes in H3 order: heavy-tailed degrees, most flows to nodes nearby, some anywhere."""
    random = np.random.default_rng(seed)
    # what repeats is merged: draw more, then keep as many as asked for
    degree = random.lognormal(0, 1.2, nodes)
    wanted = int(edges * 1.5)
    source = np.repeat(np.arange(nodes), random.multinomial(wanted, degree / degree.sum()))
    # a distance along the order of H3 of which one in a hundred is a thousand times the usual one
    step = np.exp(random.normal(5.0, 2.0, len(source))) * random.choice([-1, 1], len(source))
    target = (source + step.astype(np.int64)) % nodes
    flat = np.unique(source * nodes + target)
    flat = np.sort(random.choice(flat, min(edges, len(flat)), replace=False))
    index = torch.from_numpy(np.stack([flat // nodes, flat % nodes]))
    weight = torch.from_numpy(random.pareto(1.5, len(flat)).astype(np.float32) + 1)
    out = torch.bincount(index[0], weight, nodes).clamp(min=1)
    into = torch.bincount(index[1], weight, nodes).clamp(min=1)
    return adjacency_of([(index, (weight / (out[index[0]] * into[index[1]]).sqrt()).float())], nodes)


def coo_of(adjacency: Adjacency) -> torch.Tensor:
    """The same matrix as coordinates."""
    matrix = adjacency.matrix
    row = torch.repeat_interleave(torch.arange(len(matrix)), matrix.crow_indices().diff().long())
    index = torch.stack([row, matrix.col_indices().long()])
    return torch.sparse_coo_tensor(index, matrix.values(), matrix.shape, is_coalesced=True, check_invariants=False)


def features(nodes: int, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Values (N, D) and masks (N,) of three modalities."""
    generator = torch.Generator().manual_seed(seed)
    values = {name: torch.randn(nodes, width, generator=generator) for name, width in WIDTHS.items()}
    return values, {name: torch.rand(nodes, generator=generator) > 0.1 for name in WIDTHS}


class Published:
    """The published training step: COO adjacency, all nodes in all layers, dense logits."""

    def __init__(self, adjacency: Adjacency, table: torch.Tensor, values: dict[str, torch.Tensor], rate: float) -> None:
        coo = coo_of(adjacency)
        self.edges, self.weights = coo.indices(), coo.values()
        self.table = torch.nn.Parameter(table.clone())
        self.values = values
        self.heads = torch.nn.ModuleDict(
            {name: torch.nn.Linear(v.shape[1], table.shape[1]) for name, v in values.items()}
        )
        self.optimiser = torch.optim.AdamW([self.table, *self.heads.parameters()], lr=rate, weight_decay=1e-3)

    def vectors(self) -> torch.Tensor:
        """Embeddings of all nodes."""
        n = len(self.table)
        # made anew and moved to the device in every step, as published
        adjacency = torch.sparse_coo_tensor(self.edges, self.weights, (n, n), is_coalesced=True, check_invariants=False)
        adjacency = adjacency.to(self.table.device)
        total = layer = self.table
        for _ in range(2):
            layer = torch.sparse.mm(adjacency, layer)
            total = total + layer
        return total

    def step(self, batch: torch.Tensor, masks: dict[str, torch.Tensor]) -> float:
        """One update."""
        self.optimiser.zero_grad()
        z = self.vectors()[batch]
        losses = []
        for name, head in self.heads.items():
            kept = masks[name][batch]
            a, b = normalize(z[kept]), normalize(head(self.values[name][batch][kept]))
            logits = a @ b.T / TEMPERATURES[name]
            labels = torch.arange(len(logits))
            losses.append((cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2)
        loss = torch.stack(losses).mean()
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())
