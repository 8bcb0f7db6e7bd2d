import re
from pathlib import Path

import numpy as np
import pytest

from mobclip_core.errors import MissingTableError
from mobclip_core.evaluation.report import FILE, build_report
from mobclip_core.evaluation.scores import build_geobench_scores


def deployment_of(world, labels, **evaluation):
    options = {"title": "A <b>task</b>", "source": "s", "unit": "u", "label": {"kind": "raster", "file": "label.tif"}}
    world.label(labels)
    evaluation = {"seeds": [0], "block_resolution": 4, "probes": ["ridge"], **evaluation}
    return world.deployment(dict.fromkeys(labels, options), **evaluation)


def test_one_page_with_everything_in_it(world):
    vectors = world.features()
    rng = np.random.default_rng(0)
    labels = {f"T{i}": (world.cells, vectors @ rng.normal(size=12)) for i in range(5)}
    deployment = deployment_of(world, labels, few_shot=[0.2])
    build_geobench_scores(deployment)
    path = build_report(deployment)
    assert path.endswith(f"/{FILE}")
    page = Path(path).read_text()
    # country, scores, two plots of means and two of ranks, few labels, five maps
    assert len(re.findall('<img alt="[^"]+" src="data:image/png;base64,', page)) == 12
    for heading in ("Scores", "Ranks, spatial split", "R2 from few labels", "Where the embeddings are wrong", "Tasks"):
        assert heading in page
    assert "http" not in page
    assert "A &lt;b&gt;task&lt;/b&gt;" in page
    assert "<b>task" not in page
    assert page.count("<table>") == 2 + 2 + 2 + 1 + 1


def test_nothing_scored_is_said_and_nothing_made_is_an_error(world):
    world.features()
    deployment = deployment_of(world, {})
    with pytest.raises(MissingTableError, match="geobench_scores is not materialised"):
        build_report(deployment)
    build_geobench_scores(deployment)
    assert "No task was scored." in Path(build_report(deployment)).read_text()
