"""Work ahead in threads: results in order, with bounded look-ahead.

Belongs here: the one way of this project to overlap reading and computing. Does not belong here: what is read.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, in_flight: int | None = None
) -> Iterator[Result]:
    """Results of `work` in the order of the items, computed in threads.

    At most `in_flight` + 1 results exist at a time beside the one that is being used. What `work` raises is raised at
    its place; items after it are not begun.

    Args:
        work: What to do with an item; runs in threads.
        items: The items; taken from in the thread that asks for results.
        workers: Threads.
        in_flight: Items handed to the threads ahead of the one that is waited for; `workers` if None.
    """
    in_flight = workers if in_flight is None else in_flight
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items of an iterable, made in a thread while the one before is used; up to three exist at a time."""
    iterator, end = iter(items), object()
    for item in ordered_map(lambda _: next(iterator, end), itertools.count(), 1):
        if item is end:
            return
        yield cast(Item, item)
