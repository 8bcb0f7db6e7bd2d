"""What people see of the state of many regions."""

from mobclip_assets.status import Row, summarised


def rows(number, **states):
    return [
        Row("embeddings", f"r{i:02}", states.get(f"r{i:02}", "fresh"), 10, 100, "v", f"2026-01-{i + 1:02}T00:00:00")
        for i in range(number)
    ]


def test_few_regions_are_shown_one_by_one():
    assert summarised(rows(20)) == rows(20)


def test_many_regions_are_one_line_a_state_and_few_are_named():
    whole = Row("catalog", None, "fresh", None, None, "v", "2026-02-01T00:00:00")
    found = summarised([*rows(21, r03="failed", r04="stale", r05="stale"), whole])
    assert [(row.region, row.state, row.rows, row.bytes) for row in found] == [
        ("18 regions", "fresh", 180, 1800),
        ("r03", "failed", 10, 100),
        ("r04, r05", "stale", 20, 200),
        (None, "fresh", None, None),
    ]
    assert found[0].materialized_at == "2026-01-21T00:00:00"
