"""LINE on the CPU: stochastic gradient descent in blocks that share no node, so that threads share no row.

Belongs here: drawing samples, sorting them into blocks, the order in which blocks are visited, the compiled loop over
samples. Does not belong here: the objective and the choice of device (see `line`).

In every pass the nodes are dealt at random into P parts, and the pass's samples are sorted into blocks by the parts of
their two ends. The blocks of one round share neither a source part nor a target part, and are worked on in parallel, as
Zhu et al. 2019 (GraphVite, section 3.2, https://arxiv.org/abs/1903.00757) and Lerer et al. 2019 (PyTorch-BigGraph,
section 4, https://arxiv.org/abs/1903.12287) do. Noise nodes come from the block's target part, in proportion to
degree^0.75 within it; as the parts are dealt anew in every pass, any node may be noise for any other, about as often
as under the paper's distribution. (Parts that stay would show in the vectors: link prediction suffers.) What is drawn
depends on the seed, the pass and the block alone: the result is the same to the last bit on any number of threads.

A block's rows stay in the cache while it is worked on: on a large graph LINE waits for memory, not for arithmetic.
Memory beside the tables: 16 bytes a sample of one pass. Edges are read from front to back, and may lie in a file.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import cpu_count
from numba import njit

if TYPE_CHECKING:
    from mobclip_core.encoder.line import Graph

BYTES_OF_A_PART = 1 << 19
"""Of either table; both parts of a block fit in the second-level cache of a core."""

_MOST_PARTS = 64
_SAMPLES_OF_A_BLOCK = 400
"""Fewer would not pay for the rows that they bring into the cache."""
_SLOTS = 1 << 11
_BOUND = 8.0
"""Logits beyond this count as this: the slope is below 0.0004 there."""
_SIGMOID = (1 / (1 + np.exp(-np.linspace(-_BOUND, _BOUND, _SLOTS + 1)))).astype(np.float32)


@dataclass(frozen=True)
class Pass:
    """The samples of one pass, sorted into blocks.

    Args:
        starts: First sample of each block (source part times P + target part), and their number, int64 (P * P + 1,).
        source: Node of each sample, int32 (samples,).
        target: int32 (samples,).
        nodes: Nodes of each part, one part after the other, int32 (N,).
        bounds: First place of each part in `nodes`, and N, int64 (P + 1,).
        noise: Running sums of the noise weight within each part, float64 (N,).
        guide: Where in `noise` a search may start, int32 (N,).
    """

    starts: np.ndarray
    source: np.ndarray
    target: np.ndarray
    nodes: np.ndarray
    bounds: np.ndarray
    noise: np.ndarray
    guide: np.ndarray

    @property
    def parts(self) -> int:
        """P."""
        return len(self.bounds) - 1


def deal(
    indptr: np.ndarray,
    indices: np.ndarray,
    weight: np.ndarray,
    noise: np.ndarray,
    *,
    total: float,
    samples: int,
    parts: int,
    random: np.random.Generator,
) -> Pass:
    """Draw the samples of a pass and deal nodes and samples into parts and blocks.

    One sample for each of so many equal stretches of the edges' running weight: every edge has its share, rounded up or
    down by chance, and there is no alias table to build or to keep.

    Args:
        indptr: CSR row pointers, int64 (N + 1,).
        indices: Targets, int32 (E,); may be a memory map.
        weight: float32 (E,); may be a memory map.
        noise: degree^0.75 of each node, float64 (N,).
        total: Sum of `weight`.
        samples: Samples of the pass.
        parts: P.
        random: Draws all of it.
    """
    n = len(indptr) - 1
    nodes = random.permutation(n).astype(np.int32)
    bounds = n * np.arange(parts + 1, dtype=np.int64) // parts
    part = np.empty(n, dtype=np.int32)
    part[nodes] = np.repeat(np.arange(parts, dtype=np.int32), np.diff(bounds))
    source, target = np.empty((2, samples), dtype=np.int32)
    draw_samples(indptr, indices, weight, total, source, target, np.uint64(random.integers(0, 1 << 63)))
    starts, source, target = sort_into_blocks(source, target, part, parts)
    sums, guide = np.empty(n), np.zeros(n, dtype=np.int32)
    fill_noise(noise, nodes, bounds, sums, guide)
    return Pass(starts, source, target, nodes, bounds, sums, guide)


def parts_of(nodes: int, dimensions: int, samples: int) -> int:
    """How many parts to deal the nodes into: a power of two, decided by the sizes of tables and pass alone."""
    by_cache = nodes * dimensions * 4 / BYTES_OF_A_PART
    by_samples = np.sqrt(samples / _SAMPLES_OF_A_BLOCK)
    return int(2 ** np.floor(np.log2(np.clip(min(by_cache, by_samples), 1, _MOST_PARTS))))


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


@njit(nogil=True, cache=True)
def draw_samples(indptr: Any, indices: Any, weight: Any, total: Any, source: Any, target: Any, key: Any) -> None:
    """Fill `source` and `target` with the ends of edges drawn by weight, in the order of the edges."""
    node, edge, passed = 0, 0, float(weight[0])
    state = key
    for sample in range(len(source)):
        u, state = _uniform(state)
        wanted = (sample + u) / len(source) * total
        while passed <= wanted and edge < len(indices) - 1:
            edge += 1
            passed += weight[edge]
        while indptr[node + 1] <= edge:
            node += 1
        source[sample] = node
        target[sample] = indices[edge]


@njit(nogil=True, cache=True)
def sort_into_blocks(source: Any, target: Any, part: Any, parts: Any) -> Any:
    """Starts of the blocks, and the samples sorted by block; within one they keep their order."""
    starts = np.zeros(parts * parts + 1, dtype=np.int64)
    for k in range(len(source)):
        starts[part[source[k]] * parts + part[target[k]] + 1] += 1
    for block in range(parts * parts):
        starts[block + 1] += starts[block]
    place = starts[:-1].copy()
    sorted_source, sorted_target = np.empty_like(source), np.empty_like(target)
    for k in range(len(source)):
        block = part[source[k]] * parts + part[target[k]]
        sorted_source[place[block]] = source[k]
        sorted_target[place[block]] = target[k]
        place[block] += 1
    return starts, sorted_source, sorted_target


@njit(nogil=True, cache=True)
def fill_noise(weight: Any, nodes: Any, bounds: Any, sums: Any, guide: Any) -> None:
    """Fill the running sums of each part, and where a search in them may start; see `draw_noise`."""
    for part in range(len(bounds) - 1):
        first, last = bounds[part], bounds[part + 1]
        total = 0.0
        for k in range(first, last):
            total += weight[nodes[k]]
            sums[k] = total
        at = first
        for k in range(first, last):
            while at < last - 1 and sums[at] <= total * (k - first) / (last - first):
                at += 1
            guide[k] = at - first


@njit(nogil=True, fastmath=True, cache=True)
def train_block(
    vertex: Any,
    context: Any,
    source: Any,
    target: Any,
    nodes: Any,
    noise: Any,
    guide: Any,
    negatives: Any,
    own: Any,
    rate: Any,
    key: Any,
    sigmoid: Any,
) -> Any:
    """Follow the gradients of the samples of a block, one after the other, in random order.

    Args:
        vertex: Vertex table, float32 (N, d); changed.
        context: Context table, float32 (N, d), or the vertex table again; changed.
        source: Nodes of the samples, int32 (b,); put in another order.
        target: int32 (b,); likewise.
        nodes: Nodes of the target part, int32 (m,).
        noise: Running sums of their noise weight, float64 (m,).
        guide: Where a search in `noise` may start, int32 (m,).
        negatives: K.
        own: Chance that noise which is the true target itself counts, 1 / P.
        rate: Learning rate.
        key: Seed of this block's numbers, uint64.
        sigmoid: The sigmoid at equal steps from -`_BOUND` to `_BOUND`.

    Returns:
        The objective summed over one sample in 16, and how many these were.
    """
    d = vertex.shape[1]
    slots = len(sigmoid) - 1
    scale = slots / (2 * _BOUND)
    change = np.empty(d, dtype=np.float32)
    objective, told = 0.0, 0
    state = key
    # samples lie in the order of their sources: many in a row would pull at one node
    for k in range(len(source) - 1, 0, -1):
        u, state = _uniform(state)
        other = int(u * (k + 1))
        source[k], source[other] = source[other], source[k]
        target[k], target[other] = target[other], target[k]
    for sample in range(len(source)):
        row = vertex[source[sample]]
        change[:] = 0
        # a logarithm costs as much as a dot product
        tell = sample % 16 == 0
        for k in range(negatives + 1):
            if k == 0:
                other = target[sample]
            else:
                u, state = _uniform(state)
                other = nodes[draw_noise(noise, guide, u)]
                if other == target[sample]:
                    # noise from one part meets the true target P times as often as noise from all nodes
                    u, state = _uniform(state)
                    if u >= own:
                        continue
            opposite = context[other]
            logit = np.float32(0)
            for c in range(d):
                logit += row[c] * opposite[c]
            at = (min(max(logit, np.float32(-_BOUND)), np.float32(_BOUND)) + _BOUND) * scale
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
    graph: "Graph",
    noise: np.ndarray,
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
    """Follow the gradients of all samples, pass by pass and block by block.

    Args:
        graph: The graph; it has an edge with weight.
        noise: How often each node is noise, up to a factor, float64 (N,).
        vertex: Vertex table, float32 (N, d); changed.
        context: Context table likewise; the vertex table itself for the first order.
        samples: Positive samples in all.
        passes: How many passes they are spread over.
        negatives: K.
        rate: Learning rate by the share of the samples drawn so far.
        seed: Seed.
        told: Called after each round with the share of the work done, a summed objective and its number of samples.
        threads: Threads; those of the machine if None. They change no bit.
    """
    shared, drawn = context is vertex, 0
    passes = min(passes, samples)
    edges = (np.asarray(graph.indptr), graph.indices, graph.weight)
    total = float(np.sum(graph.weight, dtype=np.float64))
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for turn in range(passes):
            random = np.random.default_rng([seed, turn])
            size = samples * (turn + 1) // passes - samples * turn // passes
            parts = parts_of(len(vertex), vertex.shape[1], size)
            now = deal(*edges, noise, total=total, samples=size, parts=parts, random=random)
            keys = random.integers(0, 1 << 63, parts * parts).astype(np.uint64)
            for group in rounds_of(parts, shared, random):
                pairs = [[(i, j), (j, i)] if shared and i != j else [(i, j)] for i, j in group]
                step = np.float32(rate(drawn / samples))

                def visit(
                    blocks: list[tuple[int, int]], now: Pass = now, keys: np.ndarray = keys, step: np.float32 = step
                ) -> tuple[float, int, int]:
                    return _visit(now, vertex, context, blocks, negatives, step, keys)

                found = list(pool.map(visit, pairs))
                drawn += sum(count for _, _, count in found)
                told(drawn / samples, sum(o for o, _, _ in found), sum(n for _, n, _ in found))


def _visit(
    now: Pass,
    vertex: np.ndarray,
    context: np.ndarray,
    blocks: list[tuple[int, int]],
    negatives: int,
    rate: np.float32,
    keys: np.ndarray,
) -> tuple[float, int, int]:
    objective, told, drawn = 0.0, 0, 0
    for i, j in blocks:
        block = i * now.parts + j
        samples, part = slice(*now.starts[block : block + 2]), slice(*now.bounds[j : j + 2])
        source, target = now.source[samples], now.target[samples]
        if not len(source):
            continue
        noise = (now.nodes[part], now.noise[part], now.guide[part])
        how = (negatives, 1 / now.parts, rate, keys[block], _SIGMOID)
        lost, count = train_block(vertex, context, source, target, *noise, *how)
        objective, told, drawn = objective + lost, told + count, drawn + len(source)
    return objective, told, drawn
