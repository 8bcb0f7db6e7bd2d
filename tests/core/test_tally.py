import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mobclip_core.tally import Tally

STATUSES = ["inside", "outside", "swapped"]


def test_rows_are_claimed_once_and_the_first_five_remembered():
    tally, free = Tally(), np.ones(8, dtype=bool)
    rows = np.arange(107, 99, -1)
    tally.claim("swapped", free, np.array([True] * 6 + [False] * 2), rows)
    tally.claim("outside", free, np.array([True] * 7 + [False]), rows)
    tally.claim("inside", free, np.ones(8, dtype=bool))
    assert tally.counts == {"swapped": 6, "outside": 1, "inside": 1}
    assert tally.first_rows == {"swapped": [102, 103, 104, 105, 106], "outside": [101]}
    assert not free.any()


@given(st.lists(st.lists(st.sampled_from(STATUSES), max_size=9), max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_batches_does_not_matter(batches, random):
    parts, start = [], 0
    for batch in batches:
        part = Tally()
        for status in STATUSES:
            part.note(status, np.array([start + i for i, found in enumerate(batch) if found == status]))
        parts.append(part)
        start += len(batch)
    totals = []
    for _ in range(2):
        total = Tally()
        for part in parts:
            total.add(part)
        totals.append(total)
        random.shuffle(parts)
    assert totals[0] == totals[1]
    flat = [status for batch in batches for status in batch]
    for status in STATUSES:
        rows = [i for i, found in enumerate(flat) if found == status]
        assert totals[0].counts[status] == len(rows)
        assert totals[0].first_rows.get(status, []) == rows[:5]
