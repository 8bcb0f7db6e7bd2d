"""LINE on the CPU: stochastic gradient descent in blocks that share no node, so that threads share no row.

Belongs here: drawing samples, sorting them into blocks, the order in which blocks are visited, the compiled loop over
pairs. Does not belong here: the objective and the choice of device (see `line`).

A sample is an edge and its noise nodes: pairs of nodes, the first to be drawn together, the others apart. In every turn
the nodes are dealt at random into P parts, and the pairs of fewer samples than there are nodes are sorted into
blocks by the parts of their two ends. The blocks of one round share neither a source part nor a target part, and are
worked on in parallel, as Zhu et al. 2019 (GraphVite, section 3.2, https://arxiv.org/abs/1903.00757) and Lerer et al.
2019 (PyTorch-BigGraph, section 4, https://arxiv.org/abs/1903.12287) do. Two things differ from these, for link
prediction suffers from either. Noise comes from all nodes, as in the paper, not from the part of the true target: of
the first order a node must meet itself as noise, or frequent nodes grow long. And a turn is short: what a node meets in
one block it should not meet many times before it meets the others.

What is drawn depends on the seed, the pass, the turn and the place among its samples alone: the result is the same to
the last bit on any number of threads. Memory beside the tables: 8 bytes a sample of one pass, 12 (1 + K) a sample of
one turn. Edges are read from front to back, and may lie in a file.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import cpu_count
from numba import njit

from mobclip_core.encoder.prefetch import prefetch

if TYPE_CHECKING:
    from mobclip_core.encoder.line import Graph

BYTES_OF_A_PART = 1 << 19
"""Of either table; both parts of a block fit in the second-level cache of a core."""

_MOST_PARTS = 16
"""As many threads have work at a time, half as many by the first order."""
_SAMPLES_OF_A_BLOCK = 400
"""Fewer would not pay for the rows that they bring into the cache."""
_SAMPLES_OF_A_NODE, _SAMPLES_OF_A_SHARED_NODE = 0.5, 0.25
"""In a turn, of the second and of the first order. At twice as many the area under the curve of link prediction is
0.0003 and 0.0006 less; fewer cost speed."""
_CHUNK = 1 << 15
"""Samples whose noise one thread draws at a time."""
_AHEAD = 4
"""Pairs whose rows are asked for before their turn. On one thread a pair takes 77 ns so and 126 otherwise (2 ahead: 83,
8: 82), 100,000 nodes."""
_FLOATS_OF_A_LINE = 16
_SLOTS = 1 << 11
_BOUND = 8.0
"""Logits beyond this count as this: the slope is below 0.0004 there."""
_SIGMOID = (1 / (1 + np.exp(-np.linspace(-_BOUND, _BOUND, _SLOTS + 1)))).astype(np.float32)


@dataclass(frozen=True)
class Edges:
    """What samples are drawn from.

    Args:
        indptr: CSR row pointers, int64 (N + 1,).
        indices: Targets, int32 (E,); may be a memory map.
        weight: float32 (E,); may be a memory map.
        total: Its sum.
        noise: Running sums of how often each node is noise, float64 (N,).
        guide: Where in `noise` a search may start, int32 (N,).
    """

    indptr: np.ndarray
    indices: np.ndarray
    weight: np.ndarray
    total: float
    noise: np.ndarray
    guide: np.ndarray

    @classmethod
    def of(cls, graph: "Graph", noise: np.ndarray) -> "Edges":
        """Those of a graph, with the noise weight of each node, float64 (N,)."""
        sums = np.cumsum(noise)
        shares = sums[-1] * np.arange(len(sums)) / len(sums)
        guide = np.minimum(np.searchsorted(sums, shares, side="right"), len(sums) - 1).astype(np.int32)
        total = float(np.sum(graph.weight, dtype=np.float64))
        return cls(np.asarray(graph.indptr), graph.indices, graph.weight, total, sums, guide)


@dataclass(frozen=True)
class Turn:
    """The pairs of one turn, sorted into blocks.

    Args:
        starts: First pair of each block (source part times P + target part), and their number, int64 (P * P + 1,).
        source: Source node of each pair, int32 (pairs,).
        target: Target node; its complement `~target` where the pair is noise, int32 (pairs,).
        parts: P.
    """

    starts: np.ndarray
    source: np.ndarray
    target: np.ndarray
    parts: int


def draw(edges: Edges, samples: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the edges of a pass, in random order.

    One sample for each of so many equal stretches of the edges' running weight: every edge has its share, rounded up or
    down by chance, and there is no alias table to build or to keep.

    Args:
        edges: What to draw from.
        samples: How many.
        random: Draws them.

    Returns:
        Sources and targets, int32 (samples,).
    """
    source, target = np.empty((2, samples), dtype=np.int32)
    keys = random.integers(0, 1 << 63, 2).astype(np.uint64)
    draw_samples(edges.indptr, edges.indices, edges.weight, edges.total, source, target, keys[0])
    # in the order of the edges many pairs in a row would pull at one node
    shuffle(source, target, keys[1])
    return source, target


def deal(
    edges: Edges,
    source: np.ndarray,
    target: np.ndarray,
    *,
    negatives: int,
    parts: int,
    random: np.random.Generator,
    pool: ThreadPoolExecutor,
) -> Turn:
    """Draw the noise of some samples, and deal nodes into parts and pairs into blocks.

    Args:
        edges: What noise is drawn from.
        source: Source nodes of the samples, int32 (samples,).
        target: Target nodes, int32 (samples,).
        negatives: K.
        parts: P.
        random: Draws all of it.
        pool: Threads; how many changes nothing.
    """
    n, samples = len(edges.noise), len(source)
    part = np.empty(n, dtype=np.int32)
    part[random.permutation(n)] = np.arange(n, dtype=np.int64) * parts // n
    keys = random.integers(0, 1 << 63, -(-samples // _CHUNK)).astype(np.uint64)
    chunks = [slice(start, start + _CHUNK) for start in range(0, samples, _CHUNK)]
    others = np.empty((samples, 1 + negatives), dtype=np.int32)
    counts = np.zeros((len(chunks), parts * parts), dtype=np.int64)

    def fill(number: int) -> None:
        rows = chunks[number]
        ends = (source[rows], target[rows], others[rows])
        draw_noise(*ends, edges.noise, edges.guide, part, parts, counts[number], keys[number])

    list(pool.map(fill, range(len(chunks))))
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    places = starts[:-1] + np.cumsum(counts, axis=0) - counts
    sorted_source, sorted_target = np.empty((2, others.size), dtype=np.int32)

    def place(number: int) -> None:
        rows = chunks[number]
        sort_into_blocks(source[rows], others[rows], part, parts, places[number], sorted_source, sorted_target)

    list(pool.map(place, range(len(chunks))))
    return Turn(starts, sorted_source, sorted_target, parts)


def parts_of(nodes: int, dimensions: int, samples: int) -> int:
    """How many parts to deal the nodes into: a power of two, decided by the sizes of tables and turn alone."""
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
def shuffle(source: Any, target: Any, key: Any) -> None:
    """Put the samples in random order."""
    state = key
    for k in range(len(source) - 1, 0, -1):
        u, state = _uniform(state)
        other = int(u * (k + 1))
        source[k], source[other] = source[other], source[k]
        target[k], target[other] = target[other], target[k]


@njit(nogil=True, cache=True)
def draw_noise(
    source: Any, target: Any, others: Any, noise: Any, guide: Any, part: Any, parts: Any, counts: Any, key: Any
) -> None:
    """Fill `others` with each sample's target and the complements of its noise nodes; count the pairs of each block.

    A search in the running sums starts where the guide says, and ends in constant time on average: Chen and Asau 1974;
    exact, and half the memory of an alias table.
    """
    state, last = key, len(noise) - 1
    for k in range(len(source)):
        block = part[source[k]] * parts
        others[k, 0] = target[k]
        counts[block + part[target[k]]] += 1
        for c in range(1, others.shape[1]):
            u, state = _uniform(state)
            node = guide[int(u * len(noise))]
            wanted = u * noise[last]
            while noise[node] <= wanted and node < last:
                node += 1
            others[k, c] = ~node
            counts[block + part[node]] += 1


@njit(nogil=True, cache=True)
def sort_into_blocks(
    source: Any, others: Any, part: Any, parts: Any, place: Any, sorted_source: Any, sorted_target: Any
) -> None:
    """Write the pairs of some samples where `place` says that their blocks go on, in the order of the samples."""
    for k in range(len(source)):
        first = part[source[k]] * parts
        for other in others[k]:
            block = first + part[other if other >= 0 else ~other]
            sorted_source[place[block]] = source[k]
            sorted_target[place[block]] = other
            place[block] += 1


@njit(nogil=True, fastmath=True, cache=True)
def train_block(vertex: Any, context: Any, source: Any, target: Any, rate: Any, sigmoid: Any) -> Any:
    """Follow the gradients of the pairs of a block, one after the other.

    Args:
        vertex: Vertex table, float32 (N, d); changed.
        context: Context table, float32 (N, d), or the vertex table again; changed.
        source: Source nodes of the pairs, int32 (b,).
        target: Target nodes, complements for noise, int32 (b,).
        rate: Learning rate.
        sigmoid: The sigmoid at equal steps from -`_BOUND` to `_BOUND`.

    Returns:
        The objective summed over one pair in 16, and how many these were.
    """
    d = vertex.shape[1]
    slots = len(sigmoid) - 1
    scale = slots / (2 * _BOUND)
    objective, told = 0.0, 0
    for pair in range(len(source)):
        if pair + _AHEAD < len(source):
            later = target[pair + _AHEAD]
            for c in range(0, d, _FLOATS_OF_A_LINE):
                prefetch(vertex, source[pair + _AHEAD], c)
                prefetch(context, later if later >= 0 else ~later, c)
        row = vertex[source[pair]]
        together = target[pair] >= 0
        opposite = context[target[pair] if together else ~target[pair]]
        logit = np.float32(0)
        for c in range(d):
            logit += row[c] * opposite[c]
        at = (min(max(logit, np.float32(-_BOUND)), np.float32(_BOUND)) + _BOUND) * scale
        slot = min(int(at), slots - 1)
        value = sigmoid[slot] + np.float32(at - slot) * (sigmoid[slot + 1] - sigmoid[slot])
        slope = np.float32(rate * ((1 if together else 0) - value))
        for c in range(d):
            before = row[c]
            row[c] += slope * opposite[c]
            opposite[c] += slope * before
        # a logarithm costs as much as a dot product: one pair in 16, by its number times the golden ratio, so that no
        # rhythm of edges and noise is met
        if ((pair * 2654435769) & 0xFFFFFFFF) >> 28 == 0:
            signed = logit if together else -logit
            objective += max(-signed, 0.0) + np.log(1 + np.exp(-abs(signed)))
            told += 1
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
    shared, done, pairs = context is vertex, 0, samples * (1 + negatives)
    edges = Edges.of(graph, noise)
    length = max(int((_SAMPLES_OF_A_SHARED_NODE if shared else _SAMPLES_OF_A_NODE) * len(vertex)), 1)
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        for now, random in _turns(edges, samples, min(passes, samples), length, negatives, vertex.shape[1], seed, pool):
            for group in rounds_of(now.parts, shared, random):
                blocks = [[(i, j), (j, i)] if shared and i != j else [(i, j)] for i, j in group]
                visit = partial(_visit, now, vertex, context, np.float32(rate(done / pairs)))
                found = list(pool.map(visit, blocks))
                done += sum(count for _, _, count in found)
                objective, count = sum(o for o, _, _ in found) * (1 + negatives), sum(t for _, t, _ in found)
                told(done / pairs, objective, count)


def _turns(
    edges: Edges,
    samples: int,
    passes: int,
    length: int,
    negatives: int,
    dimensions: int,
    seed: int,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[Turn, np.random.Generator]]:
    """All turns of all passes, of `length` samples where nodes are in parts, each with the generator of its pass."""
    n = len(edges.noise)
    for number in range(passes):
        random = np.random.default_rng([seed, number])
        size = samples * (number + 1) // passes - samples * number // passes
        source, target = draw(edges, size, random)
        parts = parts_of(n, dimensions, min(length, size))
        # in one part all pairs are mixed as they are
        step = size if parts == 1 else min(length, size)
        for start in range(0, size, step):
            ends = (part[start : start + step] for part in (source, target))
            yield deal(edges, *ends, negatives=negatives, parts=parts, random=random, pool=pool), random


def _visit(
    now: Turn, vertex: np.ndarray, context: np.ndarray, rate: np.float32, blocks: list[tuple[int, int]]
) -> tuple[float, int, int]:
    objective, told, done = 0.0, 0, 0
    for i, j in blocks:
        block = i * now.parts + j
        pairs = slice(*now.starts[block : block + 2])
        lost, count = train_block(vertex, context, now.source[pairs], now.target[pairs], rate, _SIGMOID)
        objective, told, done = objective + lost, told + count, done + pairs.stop - pairs.start
    return objective, told, done
