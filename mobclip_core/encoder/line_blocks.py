"""LINE on the CPU: stochastic gradient descent in blocks that share no node, so that threads share no row.

Belongs here: cutting the graph into blocks, the order in which they are visited, the compiled loop over samples. Does
not belong here: the objective and the choice of device (see `line`).

The nodes are dealt at random into P parts. A block holds the edges from part i to part j; those of one round share
neither a source part nor a target part, and are worked on in parallel, as Zhu et al. 2019 (GraphVite, section 3.2,
https://arxiv.org/abs/1903.00757) and Lerer et al. 2019 (PyTorch-BigGraph, section 4, https://arxiv.org/abs/1903.12287)
do. Noise nodes come from the block's target part, in proportion to degree^0.75 within it: as the parts are random and
all of them serve, every node is noise about as often as under the paper's distribution. What is drawn depends on the
seed, the round and the block alone: the result is the same to the last bit on any number of threads.

A block's rows stay in the cache while it is worked on: on a large graph LINE waits for memory, not for arithmetic.
Memory beside the tables: 12 bytes an edge, once more while they are sorted.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import cpu_count
from numba import njit

BYTES_OF_A_PART = 1 << 19
"""Of either table; both parts of a block fit in the second-level cache of a core."""

_MOST_PARTS = 64
_SLOTS = 1 << 11
_BOUND = 8.0
"""Logits beyond this count as this: the slope is below 0.0004 there."""
_SIGMOID = (1 / (1 + np.exp(-np.linspace(-_BOUND, _BOUND, _SLOTS + 1)))).astype(np.float32)


@dataclass(frozen=True)
class Blocks:
    """A graph cut into blocks.

    Args:
        place: Row of each node in tables whose parts are contiguous, int64 (N,).
        bounds: First row of each part, and N, int64 (P + 1,).
        starts: First edge of each block (source part times P + target part), and E, int64 (P * P + 1,).
        source: Row of each edge's source, int32 (E,), ascending within a block.
        target: Row of each edge's target, int32 (E,).
        weight: float32 (E,).
        total: Weight of each block, float64 (P * P,).
        noise: Running sums of degree^0.75 within each part, float64 (N,).
        guide: For each part, as many numbers as it has nodes: where in `noise` a search may start, int32 (N,).
    """

    place: np.ndarray
    bounds: np.ndarray
    starts: np.ndarray
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    total: np.ndarray
    noise: np.ndarray
    guide: np.ndarray

    @property
    def parts(self) -> int:
        """P."""
        return len(self.bounds) - 1


def cut(
    indptr: np.ndarray, indices: np.ndarray, weight: np.ndarray, noise: np.ndarray, parts: int, seed: int
) -> Blocks:
    """Deal the nodes into parts and sort the edges by block.

    Args:
        indptr: CSR row pointers, int64 (N + 1,).
        indices: Targets, int32 (E,); may be a memory map.
        weight: float32 (E,); may be a memory map.
        noise: degree^0.75 of each node, (N,).
        parts: P.
        seed: Seed of the dealing.
    """
    n = len(indptr) - 1
    place = np.random.default_rng(seed).permutation(n)
    bounds = n * np.arange(parts + 1, dtype=np.int64) // parts
    part_of_row = np.repeat(np.arange(parts), np.diff(bounds))
    source = np.repeat(place.astype(np.int32), np.diff(indptr))
    target = place.astype(np.int32)[indices]
    block = part_of_row[source] * parts + part_of_row[target]
    order = np.lexsort((target, source, block))
    starts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=parts * parts))]).astype(np.int64)
    sorted_weight = np.asarray(weight, dtype=np.float32)[order]
    total = np.bincount(block, weight, parts * parts).astype(np.float64)
    by_row = np.empty(n)
    by_row[place] = noise
    sums, guide = np.empty(n), np.empty(n, dtype=np.int32)
    for first, last in itertools.pairwise(bounds):
        sums[first:last] = np.cumsum(by_row[first:last])
        if last > first:
            steps = sums[last - 1] * np.arange(last - first) / (last - first)
            guide[first:last] = np.searchsorted(sums[first:last], steps, side="right").clip(max=last - first - 1)
    return Blocks(place, bounds, starts, source[order], target[order], sorted_weight, total, sums, guide)


def parts_of(nodes: int, dimensions: int) -> int:
    """How many parts to deal the nodes into: even, and decided by the tables' size alone."""
    wanted = -(-nodes * dimensions * 4 // BYTES_OF_A_PART)
    return 1 if nodes < 64 else int(np.clip(2 ** int(np.ceil(np.log2(max(wanted, 2)))), 2, _MOST_PARTS))


def rounds_of(parts: int, shared: bool, random: np.random.Generator) -> Iterator[list[tuple[int, int]]]:
    """All blocks once, in rounds of blocks that can be worked on at the same time.

    Args:
        parts: P.
        shared: Sources and targets are rows of one table: the blocks of a round share no part at all, and (i, j) stands
            for (j, i) too.
        random: Draws the order of the rounds.
    """
    if not shared:
        for shift in random.permutation(parts):
            yield [(i, int((i + shift) % parts)) for i in range(parts)]
        return
    yield [(i, i) for i in range(parts)]
    if parts > 1:
        # a round-robin tournament: the last one stays, the others turn
        for turn in random.permutation(parts - 1):
            ring = [int((turn + k) % (parts - 1)) for k in range(parts - 1)]
            pairs = [(parts - 1, ring[0])]
            pairs += [(ring[k], ring[parts - 1 - k]) for k in range(1, parts // 2)]
            yield [(min(pair), max(pair)) for pair in pairs]


@njit(inline="always")
def _uniform(state: Any) -> Any:
    """The next number of splitmix64 (Steele et al. 2014) as a float in [0, 1), and the state after it."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0), state


@njit(inline="always")
def draw_noise(noise: Any, guide: Any, u: Any) -> Any:
    """The node whose stretch of the running sums `u` (in [0, 1)) falls into, found in constant time on average.

    Source: Chen and Asau 1974, the guide table method; exact, and half the memory of an alias table.
    """
    last = len(noise) - 1
    drawn = guide[int(u * len(noise))]
    wanted = u * noise[last]
    while noise[drawn] <= wanted and drawn < last:
        drawn += 1
    return drawn


@njit(nogil=True, fastmath=True, cache=True)
def train_block(
    vertex: Any,
    context: Any,
    source: Any,
    target: Any,
    weight: Any,
    total: Any,
    noise: Any,
    guide: Any,
    first_noise: Any,
    samples: Any,
    negatives: Any,
    rate: Any,
    key: Any,
    sigmoid: Any,
) -> Any:
    """Draw samples from the edges of a block and follow their gradients, one after the other.

    One sample for each of so many equal stretches of the block's weight, in the order of its edges: the nodes are dealt
    at random, so that this order says nothing.

    Args:
        vertex: Vertex table, float32 (N, d); changed.
        context: Context table, float32 (N, d), or the vertex table again; changed.
        source: Rows of the edges' sources, int32 (e,).
        target: Rows of their targets, int32 (e,).
        weight: float32 (e,).
        total: Sum of the weights.
        noise: Running sums of the target part's noise weights, float64 (m,).
        guide: Where a search in `noise` may start, int32 (m,).
        first_noise: Row of the first node of `noise`.
        samples: Positive samples to draw.
        negatives: K.
        rate: Learning rate.
        key: Seed of this block's numbers, uint64.
        sigmoid: The sigmoid at equal steps from -8 to 8.

    Returns:
        The objective summed over one sample in 16, and how many these were.
    """
    d = vertex.shape[1]
    change = np.empty(d, dtype=np.float32)
    slots = len(sigmoid) - 1
    scale = slots / 16.0
    edge, passed = 0, float(weight[0])
    objective, told = 0.0, 0
    state = key
    for sample in range(samples):
        u, state = _uniform(state)
        wanted = (sample + u) / samples * total
        while passed <= wanted and edge < len(source) - 1:
            edge += 1
            passed += weight[edge]
        row = vertex[source[edge]]
        change[:] = 0
        # a logarithm costs as much as a dot product
        tell = sample % 16 == 0
        for k in range(negatives + 1):
            if k == 0:
                other = target[edge]
            else:
                u, state = _uniform(state)
                other = first_noise + draw_noise(noise, guide, u)
            opposite = context[other]
            logit = np.float32(0)
            for c in range(d):
                logit += row[c] * opposite[c]
            at = (min(max(logit, np.float32(-8)), np.float32(8)) + 8) * scale
            slot = min(int(at), slots - 1)
            value = sigmoid[slot] + np.float32(at - slot) * (sigmoid[slot + 1] - sigmoid[slot])
            slope = np.float32(rate * ((1 if k == 0 else 0) - value))
            if tell:
                signed = logit if k == 0 else -logit
                objective += max(-signed, 0.0) + np.log(1 + np.exp(-abs(signed)))
            for c in range(d):
                change[c] += slope * opposite[c]
            for c in range(d):
                opposite[c] += slope * row[c]
        for c in range(d):
            row[c] += change[c]
        told += tell
    return objective, told


def train_blocks(
    blocks: Blocks,
    vertex: np.ndarray,
    context: np.ndarray,
    *,
    samples: int,
    passes: int,
    negatives: int,
    rate: Callable[[float], float],
    seed: int,
    told: Callable[[float, float, int], None],
    threads: int | None = None,
) -> None:
    """Follow the gradients of all samples, block by block.

    Args:
        blocks: The graph.
        vertex: Vertex table in the order of `blocks.place`, float32 (N, d); changed.
        context: Context table likewise; the vertex table itself for the first order.
        samples: Positive samples in all.
        passes: Times that every block is visited.
        negatives: K.
        rate: Learning rate by the share of the samples drawn so far.
        seed: Seed.
        told: Called after each round with the share of the work done, a summed objective and its number of samples.
        threads: Threads; those of the machine if None. They change no bit.
    """
    shared, parts = context is vertex, blocks.parts
    whole = float(blocks.total.sum())
    random = np.random.default_rng([seed, 1])
    drawn = 0.0
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for turn in range(passes):
            for group in rounds_of(parts, shared, random):
                pairs = [[(i, j), (j, i)] if shared and i != j else [(i, j)] for i, j in group]
                now = rate(drawn / samples)

                def work(block: list[tuple[int, int]], turn: int = turn, now: float = now) -> tuple[float, int, float]:
                    return _visit(blocks, vertex, context, block, samples / passes / whole, negatives, now, seed, turn)

                found = list(pool.map(work, pairs))
                drawn += sum(count for _, _, count in found)
                told(min(drawn / samples, 1.0), sum(o for o, _, _ in found), sum(n for _, n, _ in found))


def _visit(
    blocks: Blocks,
    vertex: np.ndarray,
    context: np.ndarray,
    pairs: list[tuple[int, int]],
    samples_by_weight: float,
    negatives: int,
    rate: float,
    seed: int,
    turn: int,
) -> tuple[float, int, float]:
    objective, told, drawn = 0.0, 0, 0
    for i, j in pairs:
        number = i * blocks.parts + j
        edges = slice(blocks.starts[number], blocks.starts[number + 1])
        row = slice(blocks.bounds[j], blocks.bounds[j + 1])
        random = np.random.default_rng([seed, 2, turn, number])
        # rounded up or down by chance: on average each block has its share
        samples = int(blocks.total[number] * samples_by_weight + random.random())
        noise = blocks.noise[row]
        if samples == 0 or not len(noise) or not noise[-1] > 0:
            continue
        key = np.uint64(random.integers(0, 1 << 63))
        lost, count = train_block(
            vertex,
            context,
            blocks.source[edges],
            blocks.target[edges],
            blocks.weight[edges],
            blocks.total[number],
            noise,
            blocks.guide[row],
            int(row.start),
            samples,
            negatives,
            np.float32(rate),
            key,
            _SIGMOID,
        )
        objective, told, drawn = objective + lost, told + count, drawn + samples
    return objective, told, drawn
