import re

import pytest

from tests.readme import README, RESULTS, means, read_results, with_tables


def test_the_tables_of_the_readme_are_those_of_the_last_run():
    text = README.read_text()
    named = re.findall(r"<!-- scores (\w+) ", text)
    assert sorted(set(named)) == sorted(path.stem for path in RESULTS.glob("*.csv")) == ["demo", "new_york", "usa"]
    assert with_tables(text) == text


def test_a_table_that_was_changed_by_hand_is_made_again():
    text = README.read_text()
    changed = re.sub(r"(\| POP \| 4974 \| )\d", r"\g<1>7", text)
    assert changed != text
    assert with_tables(changed) == text


def test_results_are_means_over_seeds_and_keep_what_the_table_shows():
    row = {"task": "POP", "method": "poi", "probe": "ridge", "split": "random", "n": 5, "leak": True}
    (mean,) = means([{**row, "seed": 0, "r2": 0.2}, {**row, "seed": 1, "r2": 0.4}])
    assert mean == {**row, "seeds": 2, "r2": pytest.approx(0.3)}
    for found in read_results("demo"):
        assert found["r2"] <= 1
        assert found["n"] > 0
