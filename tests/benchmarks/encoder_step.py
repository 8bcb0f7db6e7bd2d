"""A training step of the encoder against the published one, written plainly: time and peak memory, in one process.

Three modalities, d = 128, two layers, no fusion of features, as published. The published step holds a matrix of all
pairs for each modality several times over: the batch is scaled down until its estimate fits in 20 GiB, and both take
the same (`batch`); `seconds_at_20480` is ours at the paper's batch. Memory is the whole process's, data included.
`seconds_by_edges` is our step with a tenth of the edges, with these, and with five times as many.
"""

import argparse
import gc

import numpy as np
import torch

from mobclip_core.encoder.loss import StarLoss
from mobclip_core.encoder.modules import MobCLIP
from mobclip_core.encoder.ranks import ALONE
from mobclip_core.encoder.trainer import Trainer
from mobclip_core.profile import EncoderConfig
from tests.benchmarks._encoder import TEMPERATURES, WIDTHS, Published, country, features
from tests.benchmarks._report import PeakMemory, best_seconds, report

MATRICES_OF_ALL_PAIRS = 15
"""That the published step holds at its peak: logits, two log-softmaxes and gradients, of three modalities."""
MEMORY_GIB = 20


def cells_of(nodes: int) -> np.ndarray:
    """H3-shaped indices of resolution 6 in ascending order, many to a parent."""
    number = np.arange(nodes, dtype=np.uint64)
    cells = np.full(nodes, (1 << 59) | (6 << 52) | ((1 << 27) - 1), dtype=np.uint64)
    for digit in range(6):
        cells |= ((number // np.uint64(7**digit)) % np.uint64(7)) << np.uint64(27 + 3 * digit)
    return cells | (number // np.uint64(7**6)) << np.uint64(45)


def trainer_of(nodes: int, edges: int, batch: int, precision: str) -> Trainer:
    """A trainer as the step `encoder` makes it."""
    config = EncoderConfig(batch_size=batch, precision=precision, temperatures=TEMPERATURES, validation_fraction=0.01)
    torch.manual_seed(0)
    model = MobCLIP(nodes, WIDTHS, config)
    model.reset_parameters()
    torch.nn.init.normal_(model.node_table, std=0.1)
    return Trainer(model, features(nodes), country(nodes, edges), cells_of(nodes), config, ALONE)


def step_of(nodes: int, edges: int, chosen: np.ndarray, repeats: int) -> tuple[int, float]:
    """Edges that there are of those asked for, and seconds of a step."""
    trainer = trainer_of(nodes, edges, len(chosen), "float32")
    return trainer.adjacency.num_edges, best_seconds(lambda: trainer.step(chosen), repeats)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the nodes and edges")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    nodes, edges, batch = (20_500, 2_000_000, 2_048) if options.quick else (205_000, 20_000_000, 20_480)
    largest = int((MEMORY_GIB * 2**30 / MATRICES_OF_ALL_PAIRS / 4) ** 0.5) // 1024 * 1024
    shared = min(batch, largest)
    random = np.random.default_rng(0)
    chosen = np.sort(random.choice(nodes, shared, replace=False))
    trainer = trainer_of(nodes, edges, batch, "float32")
    entries = trainer.adjacency.num_edges
    gc.collect()
    with PeakMemory() as memory:
        ours = best_seconds(lambda: trainer.step(chosen), options.repeats)
    whole = np.sort(random.choice(nodes, batch, replace=False))
    with PeakMemory() as full_memory:
        at_full = best_seconds(lambda: trainer.step(whole), 1)
    trainer.model.contrast = StarLoss(half=True)
    half = best_seconds(lambda: trainer.step(chosen), options.repeats)
    plain = Published(trainer.adjacency, trainer.model.node_table.detach(), dict(trainer.values), 1e-3)
    masks = dict(trainer.masks)
    trainer.optimiser.state.clear()
    gc.collect()
    index = torch.from_numpy(chosen)
    with PeakMemory() as their_memory:
        theirs = best_seconds(lambda: plain.step(index, masks), 1)
    # last: what they leave in the heap would count in the peaks above
    by_edges = dict(step_of(nodes, wanted, chosen, options.repeats) for wanted in (edges // 10, edges * 5))
    report(
        "encoder_step",
        ours,
        "s",
        n=nodes,
        baseline=theirs,
        ratio=theirs / ours,
        peak_mib=memory.mib,
        baseline_peak_mib=their_memory.mib,
        memory_ratio=their_memory.mib / memory.mib,
        edges=entries,
        seconds_by_edges=dict(sorted({**by_edges, entries: ours}.items())),
        batch=shared,
        bf16_seconds=half,
        bf16_ratio=theirs / half,
        seconds_at_20480=at_full if batch == 20_480 else None,
        peak_mib_at_20480=full_memory.mib if batch == 20_480 else None,
    )


if __name__ == "__main__":
    main()
