from types import SimpleNamespace

from mobclip_core.encoder.card import model_card
from mobclip_core.encoder.checkpoint import TrainedEncoder


def card(**changes):
    config = {
        "encoder": {"layers": 2, "negatives_apart": None, "student": {"rings": 2}},
        "counts": {"cells": 9, "cells_with_poi": 4, "edges_kept": 20},
        "widths": {"poi": 3},
        "image_encoder": "abc",
        "inputs": {"grid_cells[a]": "1", "grid_cells[b]": "2", "mobility_graph": "3"},
    }
    encoder = TrainedEncoder({}, [], config, {"train": [2.0, 1.0], "validation": [1.5, 1.25]}, 1)
    encoder = SimpleNamespace(**{**vars(encoder), "fingerprint": "f00d", "config": {**config, **changes}})
    profile = SimpleNamespace(
        name="somewhere",
        description="",
        grid=SimpleNamespace(resolution=6),
        regions=SimpleNamespace(region_keys=["a", "b"]),
        mobility=SimpleNamespace(minimum_people=5, noise=None),
    )
    return lambda scores=None: model_card(encoder, profile, scores)


def test_it_says_what_the_encoder_was_made_of():
    text = card()()
    for line in (
        "# Encoder of somewhere",
        "Fingerprint `f00d`",
        "| grid | H3 resolution 6, 2 regions |",
        "| cells | 9 |",
        "| cells with poi | 4 |",
        "an edge is made by at least 5 people",
        "2 epochs; the best was number 2, with a loss of 1.2500",
        "| layers | 2 |",
        "| student.rings | 2 |",
        "Not evaluated yet",
    ):
        assert line in text
    assert "negatives_apart" not in text
    assert "\n\n\n" not in text
    # one line a table, whatever its partitions
    assert text.count("| grid_cells |") == 1
    assert text.count("| mobility_graph |") == 1


def test_it_shows_the_scores_once_there_are_some():
    text = card()({"R2, spatial split": "| task |\n| --- |\n| POP |"})
    assert "### R2, spatial split\n\n| task |" in text
    assert "Not evaluated yet" not in text


def test_other_inputs_are_another_card():
    assert card()() == card()()
    assert card(inputs={"grid_cells[a]": "1", "grid_cells[b]": "3"})() != card()()
