"""The published algorithm trained on a profile's inputs, beside the embeddings of its lake: R2 by task.

    python -m tests.benchmarks.published [--profile usa] [--quick]

Reads the lake of a profile, which has to be materialised. The published algorithm is this project's encoder with every
option at the paper's value (no fusion of features, no reconstruction, no spatial edges, no factors); it starts from
the lake's LINE vectors and gets the budget of the profile's encoder: the same epochs, the same batches. The paper's
learning rate and the profile's are both tried: the better one, by the mean over tasks on spatial blocks, counts. It is
scored by the ridge probe on the splits and seeds of the profile; the scores of the embeddings are those of the lake.

`value` is the mean R2 over tasks on spatial blocks, `baseline` that of the published algorithm; `worst` by how much a
task and split is below the published algorithm at most (negative: none is).
"""

import argparse
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from mobclip_core.deployment import Deployment
from mobclip_core.encoder.features import assemble_features
from mobclip_core.encoder.variants import trained_vectors
from mobclip_core.errors import MobclipError
from mobclip_core.evaluation.representations import Representations
from mobclip_core.evaluation.scores import read_scores, score
from mobclip_core.mobility.graph import open_graph
from mobclip_core.profile import EncoderConfig
from mobclip_core.store import TableRef
from mobclip_core.vectors import matrix_of
from tests.benchmarks._report import report


def published_vectors(deployment: Deployment, rate: float) -> np.ndarray:
    """Vectors of all cells, ascending, by the published algorithm: (N, 128)."""
    profile, store = deployment.profile, deployment.store
    ours = profile.encoder
    config = EncoderConfig(
        batch_size=ours.batch_size, max_epochs=ours.max_epochs, learning_rate=rate, seed=ours.seed, device=ours.device
    )
    features, graph = assemble_features(deployment), open_graph(store.bundle("mobility_graph"))
    nodes = matrix_of(store.read(TableRef("node_embeddings"))["vector"])
    return trained_vectors(features, graph, nodes, config, profile.mobility.directed)


def by_task(rows: Iterable[dict[str, Any]], split: str) -> dict[str, float]:
    """Mean R2 over seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["split"] == split:
            found.setdefault(row["task"], []).append(row["r2"])
    return {task: float(np.mean(values)) for task, values in sorted(found.items())}


def compare(deployment: Deployment, rates: list[float]) -> None:
    """Train, score, print the line."""
    profile = deployment.profile
    evaluation = profile.evaluation.model_copy(update={"probes": ["ridge"]})
    profile = profile.model_copy(update={"evaluation": evaluation})
    labels = deployment.store.read(TableRef("geobench_labels"))
    grid = deployment.store.read_all("grid_cells", ["cell"], profile.regions.region_keys)
    cells = np.sort(grid["cell"].to_numpy())
    rows = [row for row in read_scores(deployment) if (row["method"], row["probe"]) == ("embeddings", "ridge")]
    ours = {split: by_task(rows, split) for split in evaluation.splits}
    seconds, scores = {}, {}
    for rate in rates or sorted({EncoderConfig().learning_rate, profile.encoder.learning_rate}):
        started = time.perf_counter()
        vectors = published_vectors(deployment, rate)
        seconds[f"{rate:g}"] = time.perf_counter() - started
        rows, _ = score(labels, Representations(cells, {"embeddings": vectors}, "published"), profile)
        scores[f"learning rate {rate:g}"] = {split: by_task(rows, split) for split in evaluation.splits}
        means = {split: round(float(np.mean([*tasks.values()])), 4) for split, tasks in [*scores.values()][-1].items()}
        print(f"published, learning rate {rate:g}", means, file=sys.stderr, flush=True)
    best = max(scores, key=lambda name: float(np.mean([*scores[name]["spatial"].values()])))
    theirs = scores[best]
    value, baseline = (float(np.mean([*found["spatial"].values()])) for found in (ours, theirs))
    report(
        "published",
        value,
        "mean R2 on spatial blocks",
        n=len(cells),
        baseline=baseline,
        profile=profile.name,
        published=best,
        worst=max(theirs[split][task] - r2 for split, tasks in ours.items() for task, r2 in tasks.items()),
        random={
            "ours": float(np.mean([*ours["random"].values()])),
            "published": float(np.mean([*theirs["random"].values()])),
        },
        tasks={
            task: {split: [round(ours[split][task], 4), round(theirs[split][task], 4)] for split in ours}
            for task in ours["spatial"]
        },
        seconds=seconds,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="usa")
    parser.add_argument("--rates", nargs="+", type=float, default=[], help="learning rates in place of the two")
    parser.add_argument("--quick", action="store_true", help="the demo country in place of the profile")
    arguments = parser.parse_args()
    try:
        compare(Deployment.open("demo" if arguments.quick else arguments.profile), arguments.rates)
    except MobclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
