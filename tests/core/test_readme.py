import re

import numpy as np
import pytest

from tests import readme
from tests.readme import README, RESULTS, means, read_means, read_results, table_of, with_tables, write_results


def test_the_tables_of_the_readme_are_those_of_the_last_run():
    text = README.read_text()
    named = re.findall(r"<!-- (scores|means) (\w+) ", text)
    profiles = sorted({profile for _, profile in named})
    assert sorted(set(named)) == [(kind, profile) for kind in ("means", "scores") for profile in profiles]
    files = [f"{profile}{kind}" for profile in profiles for kind in ("", "_means")]
    assert sorted(files) == sorted(path.stem for path in RESULTS.glob("*.csv"))
    assert profiles == ["demo", "new_york", "usa"]
    assert with_tables(text) == text


def test_a_table_that_was_changed_by_hand_is_made_again():
    text = README.read_text()
    changed = re.sub(r"(\| POP \| 4974 \| )\d", r"\g<1>7", text)
    assert changed != text
    assert with_tables(changed) == text


def test_means_over_tasks_are_read_back_as_they_were(monkeypatch, tmp_path):
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    row = {"task": "POP", "probe": "ridge", "split": "spatial", "seed": 0, "n": 5, "leak": True}
    rows = [
        {**row, "method": method, "r2": r2, "resampled": np.array([r2 - 0.1, r2 + 0.1])}
        for method, r2 in (("embeddings", 0.5), ("poi", 0.25))
    ]
    write_results("tiny", rows)
    found = read_means("tiny", "spatial")
    assert [(mean.method, mean.tasks, mean.leaks) for mean in found] == [("embeddings", 1, 1), ("poi", 1, 1)]
    assert found[1].ahead == pytest.approx(0.25)
    assert (
        table_of("means", "tiny", "spatial").splitlines()[-1].startswith("| poi | 0.250* | 0.155 to 0.345 | +0.250 |")
    )
    assert read_means("tiny", "random") == []


def test_results_are_means_over_seeds_and_keep_what_the_table_shows():
    row = {"task": "POP", "method": "poi", "probe": "ridge", "split": "random", "n": 5, "leak": True}
    (mean,) = means([{**row, "seed": 0, "r2": 0.2}, {**row, "seed": 1, "r2": 0.4}])
    assert mean == {**row, "seeds": 2, "r2": pytest.approx(0.3)}
    for found in read_results("demo"):
        assert found["r2"] <= 1
        assert found["n"] > 0
