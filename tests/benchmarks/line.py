"""LINE on the CPU against the authors' program: samples a second and the area under the curve of link prediction.

The baseline is `line` of https://github.com/tangjianpku/LINE, built beside (its folder `linux`, g++ -O3 -march=native
-ffast-math -pthread, with the GNU scientific library) and named in MOBCLIP_LINE_BINARY; without it the baseline is
null.
Same edges, samples, threads, dimensions and noise. One edge in twenty is held out. Both are scored by the cosine of
vertex vectors, all that the program writes: by the second order it says whether two nodes have the same destinations.

The graph is generated: places on a plane with heavy-tailed sizes, edges by size and distance.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from joblib import cpu_count
from scipy.spatial import cKDTree
from sklearn.metrics import roc_auc_score

from mobclip_core.encoder.line import train_line
from mobclip_core.profile import LineConfig
from tests.benchmarks._report import PeakMemory, report


class Flows:
    """A graph in the form that `train_line` reads."""

    def __init__(self, nodes: int, source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> None:
        self.cells = np.arange(nodes, dtype=np.uint64)
        self.indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=nodes))])
        self.indices, self.weight = target.astype(np.int32), weight.astype(np.float32)
        self.keep = np.ones(len(target), dtype=bool)


def flows(nodes: int, edges: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, targets and weights of distinct directed edges, sorted."""
    random = np.random.default_rng(0)
    places = random.random((nodes, 2)) * np.sqrt(nodes)
    size = random.pareto(1.3, nodes) + 1
    source = random.choice(nodes, edges * 2, p=size / size.sum())
    reach = np.exp(random.normal(0.7, 1.1, len(source)))
    angle = random.random(len(source)) * 2 * np.pi
    wanted = places[source] + reach[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    # of the four places nearest to where the trip goes, the largest draws it
    near = cKDTree(places).query(wanted, k=4, workers=-1)[1]
    target = near[np.arange(len(near)), size[near].argmax(axis=1)]
    flat, count = np.unique((source * nodes + target)[source != target], return_counts=True)
    if len(flat) > edges:
        kept = np.sort(random.choice(len(flat), edges, replace=False))
        flat, count = flat[kept], count[kept]
    return flat // nodes, flat % nodes, count.astype(np.float64)


def theirs(binary: str, graph: Flows, samples: int, config: LineConfig, order: int) -> tuple[float, np.ndarray]:
    """Seconds of the training alone and vertex vectors of the authors' program; it counts samples in millions."""
    source = np.repeat(np.arange(len(graph.cells)), np.diff(graph.indptr))
    with tempfile.TemporaryDirectory() as folder:
        edges, vectors = Path(folder) / "edges.txt", Path(folder) / "vectors.bin"
        columns = zip(source.tolist(), graph.indices.tolist(), graph.weight.tolist(), strict=True)
        edges.write_text("".join(f"{a} {b} {w:g}\n" for a, b, w in columns))
        options = {
            "train": edges, "output": vectors, "binary": 1, "size": config.dimensions, "order": order,
            "negative": config.negatives, "samples": samples // 1_000_000, "rho": config.learning_rate,
            "threads": cpu_count(),
        }  # fmt: skip
        command = [binary, *(str(part) for name, value in options.items() for part in (f"-{name}", value))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdout is not None
        began, said = None, b""
        while chunk := process.stdout.read(64):
            said = (said + chunk)[-200:]
            # the first word of progress: reading the file and its tables are done
            if began is None and b"Progress" in said:
                began = time.perf_counter()
            if began is not None and b"Total time" not in said:
                ended = time.perf_counter()
        process.wait()
        raw = vectors.read_bytes()
    n, d = (int(part) for part in raw[: raw.index(b"\n")].split())
    found, at = np.zeros((len(graph.cells), d), dtype=np.float32), raw.index(b"\n") + 1
    for _ in range(n):
        name_end = raw.index(b" ", at)
        number = int(raw[at:name_end])
        found[number] = np.frombuffer(raw, np.float32, d, name_end + 1)
        at = name_end + 1 + 4 * d + 1
    return ended - (began or ended), found


def area(vectors: np.ndarray, held: np.ndarray, others: np.ndarray) -> float:
    """How often a held-out edge has a larger cosine than a pair without an edge."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    pairs = np.concatenate([held, others])
    truth = np.arange(len(pairs)) < len(held)
    return float(roc_auc_score(truth, (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the graph and of the samples")
    parser.add_argument("--runs", type=int, default=3, help="of both; medians are reported")
    parser.add_argument("--order", choices=["first", "second"], default="second")
    options = parser.parse_args()
    nodes, edges, samples = (10_000, 300_000, 2_000_000) if options.quick else (100_000, 3_000_000, 30_000_000)
    source, target, weight = flows(nodes, edges)
    random = np.random.default_rng(1)
    out = random.random(len(source)) < 0.05
    graph = Flows(nodes, source[~out], target[~out], weight[~out])
    present = np.flatnonzero(np.bincount(np.append(source[~out], target[~out]), minlength=nodes))
    others = random.choice(present, (200_000, 2))
    others = others[~np.isin(others[:, 0] * nodes + others[:, 1], source * nodes + target)]
    held = np.column_stack([source[out], target[out]])
    config = LineConfig(order=options.order, max_samples=samples, samples_per_edge=1000)
    # compile before the clock runs
    train_line(graph, config.model_copy(update={"max_samples": 1000}))
    binary, ours, seconds, areas = os.environ.get("MOBCLIP_LINE_BINARY"), [], [], []
    with PeakMemory() as memory:
        # in turns: what else the machine does hits both
        for _ in range(options.runs):
            ours.append(train_line(graph, config))
            if binary:
                took, vectors = theirs(binary, graph, samples, config, 1 if options.order == "first" else 2)
                seconds.append(took)
                areas.append(area(vectors, held, others))
    ours_seconds = statistics.median(each.seconds for each in ours)
    report(
        "line",
        ours[0].samples / ours_seconds,
        "samples/s",
        n=len(graph.indices),
        baseline=samples / statistics.median(seconds) if seconds else None,
        peak_mib=memory.mib,
        nodes=nodes,
        samples=ours[0].samples,
        seconds=ours_seconds,
        seconds_of_runs=[each.seconds for each in ours],
        baseline_seconds_of_runs=seconds,
        order=options.order,
        threads=cpu_count(),
        auc=area(ours[0].vertex, held, others),
        baseline_auc=statistics.median(areas) if areas else None,
        # threads write without locks: no two runs of the program are alike, all of ours are
        baseline_aucs=areas,
        same_every_run=all(np.array_equal(each.vertex, ours[0].vertex) for each in ours),
    )


if __name__ == "__main__":
    main()
