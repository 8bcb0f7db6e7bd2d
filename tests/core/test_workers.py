import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobclip_core.workers import ahead, ordered_map


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_results_come_in_order(items, workers):
    assert list(ordered_map(lambda item: item * 2, items, workers)) == [item * 2 for item in items]
    assert list(ahead(items)) == items


def test_few_results_exist_at_a_time():
    alive, most, lock = 0, 0, threading.Lock()

    def work(item):
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return item

    for _ in ordered_map(work, range(50), 3):
        with lock:
            alive -= 1
    assert most <= 5


@pytest.mark.parametrize("stream", [lambda items: ordered_map(lambda item: 1 // item, items, 2), None])
def test_an_error_comes_at_its_place_and_ends_the_stream(stream):
    begun = []

    def items():
        for item in (1, 1, 0, *[1] * 50):
            begun.append(item)
            if stream is None and item == 0:
                raise ZeroDivisionError
            yield item

    results = stream(items()) if stream else ahead(items())
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) <= 7


def test_a_reader_that_stops_stops_the_work():
    begun = []
    stream = ordered_map(lambda item: begun.append(item) or item, range(1000), 2)
    assert next(stream) == 0
    stream.close()
    assert len(begun) <= 4
