"""A region that the encoder never saw: the student's vectors against those of full training, and against raw features.

    python -m tests.benchmarks.inductive [--profile demo] [--regions 3] [--quick]

Reads the lake of a profile, which has to be materialised. Each of the largest regions in turn is taken out of the
features, the graph, LINE and the training; then it is embedded with that encoder frozen, as a region that was added. A
ridge probe learns from the units of all other regions and is tested on the region's. `by_task` is R2 of the predictions
of all regions together, as the scores of spatial folds are. `value` is the mean over tasks of the student over that of
full training, `baseline` that of raw features (the three modalities, as the encoder reads them).

`by_region` is the mean R2 within each region over the tasks that have ten units there whose labels vary at least half
as much as in all regions (standard deviation), for where nothing varies R2 says nothing; `skipped` are the others.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.metrics import r2_score

from mobclip_core.cells import parents
from mobclip_core.deployment import Deployment
from mobclip_core.encoder.building import build_encoder
from mobclip_core.encoder.checkpoint import TrainedEncoder
from mobclip_core.encoder.embedding import build_embeddings
from mobclip_core.encoder.features import FEATURE_TABLES, assemble_features
from mobclip_core.encoder.line import build_node_embeddings
from mobclip_core.encoder.readout import stacked
from mobclip_core.encoder.subgraphs import graph_among
from mobclip_core.errors import MobclipError
from mobclip_core.evaluation.probes import ridge_predictions
from mobclip_core.evaluation.splits import Split, spatial_split
from mobclip_core.evaluation.units import UnitSet, unit_sets
from mobclip_core.mobility.graph import open_graph
from mobclip_core.store import Store, TableRef
from mobclip_core.vectors import matrix_of
from tests.benchmarks._report import report

METHODS = ("full", "student", "raw")
FEWEST_UNITS = 10
LEAST_SPREAD = 0.5
"""Of a region's labels, over that of all regions."""


def vectors_without(deployment: Deployment, region: str, folder: Path) -> dict[str, np.ndarray]:
    """`student` and `raw`: vectors and features of all cells, ascending, where training never saw the region."""
    profile, lake = deployment.profile, deployment.store
    for table in ("grid_cells", *FEATURE_TABLES.values()):
        (folder / table).symlink_to(Path(lake.root) / table)
    keys = [key for key in profile.regions.region_keys if key != region]
    fewer = profile.model_copy(update={"regions": profile.regions.model_copy(update={"keys": keys})})
    store = Store(str(folder))
    cells = np.sort(store.read_all("grid_cells", ["cell"], keys)["cell"].to_numpy())
    graph = graph_among(open_graph(lake.bundle("mobility_graph")), cells)
    with store.write_bundle("mobility_graph", []) as bundle:
        for name in ("cells", "indptr", "indices", "weight", "keep"):
            np.save(bundle / f"{name}.npy", getattr(graph, name))
    build_node_embeddings(Deployment(fewer, store))
    build_encoder(Deployment(fewer, store))
    whole = Deployment(profile, store)
    for key in profile.regions.region_keys:
        build_embeddings(whole, key)
    assert store.read(TableRef("embeddings", region))["source"].unique().to_pylist() == ["student"]
    table = store.read_all("embeddings", ["cell", "vector"], profile.regions.region_keys).sort_by("cell")
    features = assemble_features(whole, None, TrainedEncoder.load(store.bundle("encoder")).statistics)
    return {"student": matrix_of(table["vector"]), "raw": stacked(features)}


def predictions_of(
    units: UnitSet, inside: np.ndarray, matrices: Mapping[str, np.ndarray], resolution: int
) -> dict[str, np.ndarray] | None:
    """`truth` and each method's predictions of the units mostly inside the region, learnt from the others: (n, tasks).

    The penalty is chosen on spatial blocks of the others. None where there are too few units.
    """
    held = units.weights @ inside.astype(float) > 0.5
    others = spatial_split(parents(units.centres[~held], resolution), 0, folds=5) if (~held).any() else None
    if held.sum() < FEWEST_UNITS or others is None:
        return None
    part = np.zeros(len(held), dtype=np.int64)
    part[~held] = others.part + 1
    split = Split("region", 0, part, ((0,),), np.arange(len(held)))
    found = {"truth": units.targets[held]}
    for method, matrix in matrices.items():
        X = np.asarray(units.weights @ matrix)
        found[method] = ridge_predictions(X, units.targets, split)[0][held]
    return found


def compare(deployment: Deployment, count: int, only: list[str]) -> None:
    """Take out the largest regions (or those named), one after the other, and print the line."""
    store, keys = deployment.store, deployment.profile.regions.region_keys
    grid = store.read_all("grid_cells", ["cell", "region"], keys).sort_by("cell")
    cells, region_of = grid["cell"].to_numpy(), np.array(grid["region"].to_pylist())
    table = store.read_all("embeddings", ["cell", "vector"], keys).sort_by("cell")
    sets = unit_sets(store.read(TableRef("geobench_labels")), cells)
    together: dict[str, list[dict[str, np.ndarray]]] = {}
    by_region: dict[str, dict[str, float]] = {}
    skipped: dict[str, list[str]] = {}
    regions = only or sorted(keys, key=lambda key: -int((region_of == key).sum()))[:count]
    for region in regions:
        with tempfile.TemporaryDirectory() as name:
            matrices = {"full": matrix_of(table["vector"])} | vectors_without(deployment, region, Path(name))
        scores: dict[str, list[float]] = {method: [] for method in METHODS}
        for units in sets:
            found = predictions_of(units, region_of == region, matrices, deployment.profile.evaluation.block_resolution)
            for i, task in enumerate(units.tasks):
                if found is None:
                    skipped.setdefault(region, []).append(task)
                    continue
                column = {key: values[:, i] for key, values in found.items()}
                together.setdefault(task, []).append(column)
                if column["truth"].std() < LEAST_SPREAD * units.targets[:, i].std():
                    skipped.setdefault(region, []).append(task)
                    continue
                for method in METHODS:
                    scores[method].append(r2_score(column["truth"], column[method]))
        by_region[region] = {method: round(float(np.mean(values)), 4) for method, values in scores.items()}
        print(f"{region}: {json.dumps(by_region[region])}", file=sys.stderr, flush=True)
    by_task = {
        task: {m: round(r2_score(*(np.concatenate([c[k] for c in found]) for k in ("truth", m))), 4) for m in METHODS}
        for task, found in sorted(together.items())
    }
    full, student, raw = (float(np.mean([row[method] for row in by_task.values()])) for method in METHODS)
    report(
        "inductive",
        student / full,
        "R2 over that of full training",
        n=int(np.isin(region_of, regions).sum()),
        baseline=raw / full,
        profile=deployment.profile.name,
        mean_r2={"full": full, "student": student, "raw": raw},
        by_region=by_region,
        by_task=by_task,
        skipped=skipped,
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--regions", type=int, default=3, help="how many, the largest first")
    parser.add_argument("--only", nargs="+", default=[], help="these regions instead")
    parser.add_argument("--quick", action="store_true", help="one region")
    arguments = parser.parse_args()
    try:
        compare(Deployment.open(arguments.profile), 1 if arguments.quick else arguments.regions, arguments.only)
    except MobclipError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
