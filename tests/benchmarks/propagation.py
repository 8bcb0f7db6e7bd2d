"""One layer of the propagation against the bandwidth of memory, and against a COO product; time by number of edges.

Floor of a layer: every edge's index and weight once, every vector in and out once, at the bandwidth that adding two
large arrays reaches on the same cores. `gather_gbps` counts each edge's vector too, which the cache saves in part.
"""

import argparse
import resource

import torch

from mobclip_core.encoder.propagation import Adjacency, LightGCN
from tests.benchmarks._encoder import coo_of, country
from tests.benchmarks._report import best_seconds, report

D = 128


def bandwidth(values: int = 50_000_000) -> float:
    """Bytes a second of `c = a + b` on arrays that fit in no cache."""
    a, b = torch.ones(values), torch.ones(values)
    c = torch.empty_like(a)
    return 3 * 4 * values / best_seconds(lambda: torch.add(a, b, out=c))


def seconds_of_a_product(matrix: torch.Tensor, x: torch.Tensor, repeats: int = 3) -> float:
    """Of one layer."""
    return best_seconds(lambda: torch.sparse.mm(matrix, x), repeats)


def seconds_of_a_batch(adjacency: Adjacency, x: torch.Tensor) -> float:
    """Of two layers at a tenth of the nodes, forward and backward."""
    batch = torch.randperm(len(x))[: len(x) // 10].sort().values
    grown = x.clone().requires_grad_()
    return best_seconds(lambda: LightGCN(2)(grown, adjacency, adjacency.rows(batch)).sum().backward())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="0.2 and 2 million edges")
    quick = parser.parse_args().quick
    nodes, sizes = (20_500, [200_000, 2_000_000]) if quick else (205_000, [2_000_000, 20_000_000, 100_000_000])
    speed = bandwidth(5_000_000 if quick else 50_000_000)
    x = torch.randn(nodes, D)
    layer, backward, edges, gathered = [], [], [], []
    baseline = rows_seconds = floor = 0.0
    for wanted in sizes:
        adjacency = country(nodes, wanted)
        edges.append(adjacency.num_edges)
        layer.append(seconds_of_a_product(adjacency.matrix, x))
        backward.append(seconds_of_a_product(adjacency.transpose, x))
        gathered.append(adjacency.num_edges * (4 * D + 8) / layer[-1] / 1e9)
        if wanted == sizes[1]:
            floor = (8 * adjacency.num_edges + 2 * 4 * D * nodes) / speed
            baseline = seconds_of_a_product(coo_of(adjacency), x, repeats=1)
            rows_seconds = seconds_of_a_batch(adjacency, x)
    at = layer[1]
    report(
        "propagation",
        at,
        "s",
        n=edges[1],
        baseline=baseline,
        ratio=baseline / at,
        floor_ratio=at / floor,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        nodes=nodes,
        bandwidth_gbps=speed / 1e9,
        gather_gbps=gathered,
        gather_share_of_bandwidth=gathered[1] * 1e9 / speed,
        edges=edges,
        seconds=layer,
        transpose_seconds=backward,
        nanoseconds_an_edge=[1e9 * s / e for s, e in zip(layer, edges, strict=True)],
        two_layers_of_a_batch_seconds=rows_seconds,
    )


if __name__ == "__main__":
    main()
