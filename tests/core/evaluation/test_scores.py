import numpy as np

from mobclip_core.evaluation.scores import build_geobench_scores, read_scores, scores_markdown

ROWS = [
    {
        "task": task,
        "method": method,
        "probe": "ridge",
        "split": "spatial",
        "seed": seed,
        "n": 50,
        "r2": r2,
        "leak": leak,
    }
    for task, method, seed, r2, leak in [
        ("POP", "embeddings", 0, 0.5, True),
        ("POP", "embeddings", 1, 0.7, True),
        ("POP", "coordinates", 0, 0.1, False),
        ("NTL", "embeddings", 0, 0.4, False),
        ("NTL", "coordinates", 0, -0.1, False),
    ]
]


def test_the_table_of_scores_averages_seeds_and_marks_leaks():
    assert scores_markdown(ROWS, "spatial").splitlines() == [
        "| task | n | embeddings | coordinates |",
        "| --- | ---: | ---: | ---: |",
        "| NTL | 50 | 0.400 | -0.100 |",
        "| POP | 50 | 0.600* | 0.100 |",
        "| **mean** |  | **0.500** | **0.000** |",
    ]


def test_the_table_of_scores_across_and_with_gaps():
    rows = [row for row in ROWS if (row["task"], row["method"]) != ("NTL", "coordinates")]
    assert scores_markdown(rows, "spatial", tasks_across=True).splitlines() == [
        "| method | **mean** | NTL | POP |",
        "| --- | ---: | ---: | ---: |",
        "| embeddings | **0.50** | 0.40 | 0.60* |",
        "| coordinates |  |  | 0.10 |",
    ]
    assert scores_markdown(rows, "spatial").splitlines()[-1] == "| **mean** |  | **0.500** |  |"


# ---- the step ----


def tasks(*codes, overlaps=()):
    label = {"kind": "raster", "file": "label.tif"}
    options = {"title": "T", "source": "s", "unit": "u", "label": label, "overlaps": list(overlaps)}
    return dict.fromkeys(codes, options)


def score(world, labels, overlaps=(), **evaluation):
    world.label(labels)
    deployment = world.deployment(tasks(*labels, overlaps=overlaps), **evaluation)
    result = build_geobench_scores(deployment)
    return result, read_scores(deployment)


def mean_r2(rows, **wanted):
    found = [row["r2"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    assert found
    return np.mean(found)


def smooth(world, rng):
    """A label without any relation to the inputs but smooth in space: waves of 60 km in random directions."""
    phase = rng.uniform(0, 2 * np.pi, 8)
    angle = rng.uniform(0, 2 * np.pi, 8)
    xy = np.column_stack([(world.lon - 10) * 78, (world.lat - 45) * 111])
    waves = [np.cos((xy @ [np.cos(a), np.sin(a)]) * 2 * np.pi / 60 + p) for a, p in zip(angle, phase, strict=True)]
    return np.sum(waves, axis=0)


def test_scores_say_what_is_there_and_nothing_that_is_not(world):
    rng = np.random.default_rng(1)
    vectors = world.features()
    linear = vectors @ rng.normal(size=12)
    labels = {
        "LIN": (world.cells, linear),
        "NOI": (world.cells, rng.normal(size=len(world.cells))),
        "SHU": (world.cells, rng.permutation(linear)),
        "SMO": (world.cells, smooth(world, rng)),
    }
    evaluation = {"block_resolution": 4, "seeds": [0, 1], "small_sample": 100, "probes": ["ridge", "lightgbm"]}
    result, rows = score(world, labels, lightgbm_methods=["embeddings", "coordinates"], **evaluation)
    for split in ("random", "spatial"):
        assert mean_r2(rows, task="LIN", method="embeddings", probe="ridge", split=split) > 0.99
        for task in ("NOI", "SHU"):
            for method in ("embeddings", "raw_features", "coordinates"):
                assert mean_r2(rows, task=task, method=method, probe="ridge", split=split) <= 0.02
                found = [
                    r
                    for r in rows
                    if (r["task"], r["method"], r["split"], r["probe"]) == (task, method, split, "ridge")
                ]
                assert all(row["r2_low"] <= 0 for row in found)
                assert all(-0.25 < row["r2"] <= row["r2_high"] + 1e-9 for row in found)
    # trees on coordinates remember neighbours: good among them, worthless where there are none
    assert mean_r2(rows, task="SMO", method="coordinates", probe="lightgbm", split="random") > 0.5
    assert mean_r2(rows, task="SMO", method="coordinates", probe="lightgbm", split="spatial") < 0.15
    assert mean_r2(rows, task="SMO", method="embeddings", probe="lightgbm", split="random") < 0.05
    assert result.counts["tasks_scored"] == 4
    assert {row["method"] for row in rows if row["probe"] == "lightgbm"} == {"embeddings", "coordinates"}
    # 9 methods of the ridge probe, 2 of trees, and the neighbours
    assert len(rows) == 4 * 2 * 2 * (9 + 2 + 1)
    # neighbours do so too, and find nothing in noise
    neighbours = {"method": "spatial_neighbours", "probe": "neighbours"}
    assert {row["probe"] for row in rows if row["method"] == "spatial_neighbours"} == {"neighbours"}
    assert mean_r2(rows, task="SMO", split="random", **neighbours) > 0.9
    assert mean_r2(rows, task="SMO", split="spatial", **neighbours) < 0.3
    assert mean_r2(rows, task="NOI", split="spatial", **neighbours) <= 0.02
    assert result.pictures["Scores"].startswith(b"\x89PNG")
    assert {name for name in result.markdown if name.startswith("R2")} == {
        "R2, random split, ridge",
        "R2, spatial split, ridge",
    }
    assert "| embeddings |" in result.markdown["Means, spatial split"]
    assert result.pictures["Means, spatial split"].startswith(b"\x89PNG")
    assert result.markdown["R2, spatial split, ridge"].count("\n") == 6


def test_rows_have_the_keys_that_others_read_and_every_unit_is_tested_under_blocks(world):
    world.features()
    labels = {"POP": (world.cells, world.population)}
    _, rows = score(world, labels, overlaps=["census"], block_resolution=4, seeds=[3], small_sample=1000)
    wanted = {"profile", "task", "method", "probe", "split", "seed", "n", "r2", "r2_low", "r2_high", "leak"}
    assert wanted <= set(rows[0])
    assert {row["probe"] for row in rows} == {"ridge", "neighbours"}
    assert {(row["profile"], row["seed"], row["n"], row["n_test"]) for row in rows} == {
        ("tiny", 3, len(world.cells), len(world.cells))
    }
    leaks = {row["method"]: row["leak"] for row in rows}
    assert [m for m, leak in leaks.items() if leak] == ["census", "embeddings", "pca_128", "raw_features"]
    assert [m for m, leak in leaks.items() if not leak] == [
        "coordinates",
        "imagery",
        "mobility",
        "poi",
        "spatial_neighbours",
        "spherical_harmonics",
    ]


def test_rows_say_what_they_are_of(world):
    world.features()
    labels = {"POP": (world.cells, world.population), "TWO": (world.cells, 2 * world.population)}
    _, rows = score(world, labels, seeds=[0, 1], block_resolution=4)
    versions = {row["task"]: row["label_version"] for row in rows}
    assert len(set(versions.values())) == 2
    assert len({(row["task"], row["label_version"]) for row in rows}) == 2
    inputs = {row["method"]: row["input_version"] for row in rows}
    assert len(set(inputs.values())) == len(inputs)
    world.features(seed=1)
    _, others = score(world, labels, seeds=[0, 1], block_resolution=4)
    assert {row["task"]: row["label_version"] for row in others} == versions
    changed = {row["method"] for row in others if row["input_version"] != inputs[row["method"]]}
    assert changed == {"embeddings", "poi", "imagery", "mobility", "raw_features", "pca_128"}
    for row in rows:
        np.testing.assert_allclose(np.nanpercentile(row["resampled"], 2.5), row["r2_low"], atol=1e-6)


def test_each_region_is_left_out_once(world):
    world.features()
    # a label that is a constant of the region: nothing but the other region is learnt from
    labels = {"REG": (world.cells, (world.region == "west") * 1.0 + np.random.default_rng(0).normal(0, 0.01, 397))}
    _, rows = score(world, labels, splits=["random", "region"], probes=["ridge"], seeds=[0, 1])
    regional = [row for row in rows if row["split"] == "region"]
    assert {row["seed"] for row in regional} == {0}
    assert {row["n_test"] for row in regional} == {len(world.cells)}
    assert mean_r2(rows, method="coordinates", split="random") > 0.5
    assert mean_r2(rows, method="coordinates", split="region") < 0


def test_the_papers_trees_are_for_the_papers_split(world):
    vectors = world.features()
    labels = {"LIN": (world.cells, vectors[:, 0])}
    probes = ["ridge", "lightgbm_published"]
    _, rows = score(world, labels, probes=probes, seeds=[0], small_sample=100, lightgbm_methods=["embeddings"])
    assert {row["split"] for row in rows if row["probe"] == "lightgbm_published"} == {"random"}
    assert mean_r2(rows, method="embeddings", probe="lightgbm_published") > 0.8


def test_a_random_split_of_a_large_sample_tests_a_fifth(world):
    world.features()
    labels = {"POP": (world.cells, world.population)}
    _, rows = score(world, labels, splits=["random"], probes=["ridge"], seeds=[0], small_sample=50)
    assert {row["n_test"] for row in rows} == {-(-len(world.cells) // 5)}


def test_tasks_that_cannot_be_scored_are_counted(world, caplog):
    world.features()
    labels = {
        "FEW": (world.cells[:9], np.arange(9.0)),
        "SAME": (world.cells[:30], np.ones(30)),
        "NEAR": (world.cells[:12], np.arange(12.0)),
    }
    result, rows = score(world, labels, block_resolution=0, seeds=[0])
    assert {row["task"] for row in rows} == {"NEAR"}
    assert {row["split"] for row in rows} == {"random"}
    assert result.counts["FEW_skipped_too_few_units"] == 9
    assert result.counts["SAME_skipped_constant_label"] == 30
    assert result.counts["NEAR_spatial_skipped_one_block"] == 12
    assert "FEW is not scored: too few units (9 units)" in caplog.text
    assert "no spatial split for NEAR" in caplog.text


def test_no_tasks_give_an_empty_table(world):
    world.features()
    result, rows = score(world, {})
    assert rows == []
    assert result.pictures == result.markdown == {}
    assert result.counts["tasks_scored"] == 0


def test_the_same_input_gives_the_same_bytes(world):
    world.features()
    labels = {"POP": (world.cells, world.population)}
    versions = {score(world, labels, seeds=[0], block_resolution=4)[0].written.data_version for _ in range(2)}
    assert len(versions) == 1
