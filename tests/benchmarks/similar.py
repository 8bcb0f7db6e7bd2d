"""The ten cells most like one of 205,000, exactly; and about, by the approximate index.

    python -m tests.benchmarks.similar [--cells 205000] [--lake usa] [--quick]

Cells as in `lookup`. The baseline is scikit-learn's exact nearest neighbours. Of the index: milliseconds a question,
the share of the ten that it finds (generated vectors, which have no order, are its worst case), and seconds to build
it.
"""

import time

import numpy as np
from sklearn.neighbors import NearestNeighbors

from mobclip_core import serving
from tests.benchmarks._report import median_seconds, report
from tests.benchmarks._serving import options_and_places


def main() -> None:
    """Measure and print."""
    _, places = options_and_places(__doc__)
    chosen = [int(cell) for cell in places.cells[:: len(places) // 100]]
    places.similar(cell=chosen[0])

    def seconds_of(index: serving.LikenessIndex | None) -> float:
        return median_seconds(lambda: [places.similar(cell=cell, index=index) for cell in chosen], 3) / len(chosen)

    seconds = seconds_of(None)
    known = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(places.vectors)
    rows = places.rows_of(np.array(chosen[:5], dtype=np.uint64))
    baseline = median_seconds(lambda: [known.kneighbors(places.vectors[[row]]) for row in rows], 3) / 5
    began = time.perf_counter()
    index = serving.LikenessIndex.of(places)
    build = time.perf_counter() - began
    exact, near = ([places.similar(cell=cell, index=by).cells for cell in chosen] for by in (None, index))
    report(
        "similar",
        1 / seconds,
        "questions/s",
        n=len(places),
        baseline=1 / baseline,
        milliseconds=1000 * seconds,
        index_milliseconds=1000 * seconds_of(index),
        index_recall_at_10=float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, near, strict=True)])),
        index_build_seconds=build,
    )


if __name__ == "__main__":
    main()
