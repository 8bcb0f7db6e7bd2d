"""Calibrated noise on counts of people and movements.

Belongs here: how much noise a guarantee asks for, the threshold that hides which edges are rare, and drawing the noise
with OpenDP (https://docs.opendp.org). Does not belong here: bounding what one person contributes (see
`sql/mobility_bounded_pairs.sql`).

The guarantee. Two data sets differ in all records of one person. An edge has n people and w movements; a person changes
n by 1 on at most E edges and w by at most M in all. Half of epsilon protects the counts of people, half the movements,
each by one call of an OpenDP measurement calibrated to (E, M). Edges of fewer than k people are never released, so what
the person decides is whether an edge of exactly k people is looked at: it is released only where its noisy number of
people reaches k + t, which happens with a probability of at most delta / E. That is the stability-based histogram of
Korolova et al. (https://doi.org/10.1145/1526709.1526733) with k - 1 in the place of 0.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mobclip_core.profile import Noise


@dataclass(frozen=True)
class Calibration:
    """Noise for one source.

    Args:
        mechanism: Discrete Laplace or Gaussian noise.
        people_scale: Scale of the noise on people.
        weight_scale: Scale of the noise on movements.
        threshold: Smallest noisy number of people that is published.
    """

    mechanism: str
    people_scale: float
    weight_scale: float
    threshold: int


def calibrate(noise: Noise, minimum_people: int, *, bounded: bool) -> Calibration:
    """How much noise the profile's guarantee asks for.

    Args:
        noise: The profile's noise.
        minimum_people: k.
        bounded: The source has people, who contribute up to the profile's bounds; else the protected unit is one trip
            or one unit of one flow, which changes one edge by 1.

    Returns:
        The calibration: with Laplace noise delta pays for the threshold alone; with Gaussian noise half of it does, and
        a quarter for each of the two counts.
    """
    edges = noise.max_edges_per_person if bounded else 1
    movements = noise.max_movements_per_person if bounded else 1
    edges = min(edges, movements)
    half = noise.epsilon / 2
    dp = _opendp()
    if noise.mechanism == "laplace":
        people = _scale(noise, edges, half, 0.0)
        weight = _scale(noise, movements, half, 0.0)
        tail = dp.discrete_laplacian_scale_to_accuracy(people, noise.delta / edges)
    else:
        people = _scale(noise, math.sqrt(edges), half, noise.delta / 4)
        # all movements of a person may lie on one edge
        weight = _scale(noise, float(movements), half, noise.delta / 4)
        tail = dp.discrete_gaussian_scale_to_accuracy(people, noise.delta / 2 / edges)
    return Calibration(noise.mechanism, people, weight, minimum_people + math.ceil(tail))


def add_noise(exact: pa.Table, calibration: Calibration) -> pa.Table:
    """Fresh noise on the columns `people` and `weight`; rows whose noisy people stay below the threshold are dropped.

    Args:
        exact: Any columns, with whole numbers in `people` and `weight`.
        calibration: From `calibrate`.

    Returns:
        The rows that pass, with float64 `people` (at least the threshold) and `weight` (at least 1).
    """
    if not exact.num_rows:
        return exact
    people = _draw(exact["people"], calibration.mechanism, calibration.people_scale)
    passed = people >= calibration.threshold
    kept = exact.filter(pa.array(passed))
    weight = _draw(kept["weight"], calibration.mechanism, calibration.weight_scale)
    columns = {"people": people[passed].astype(float), "weight": np.maximum(weight, 1).astype(float)}
    for name, values in columns.items():
        kept = kept.set_column(kept.schema.get_field_index(name), name, pa.array(values))
    return kept


def _opendp() -> Any:
    # named as outside OpenDP's vetted set, though their proofs are published; its authors ask for this switch
    import opendp.prelude as dp

    dp.enable_features("contrib")
    return dp


def _measurement(mechanism: str, scale: float) -> Any:
    dp = _opendp()
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    if mechanism == "laplace":
        return dp.m.make_laplace(domain, dp.l1_distance(T="i64"), scale=scale)
    return dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), scale=scale)


def _scale(noise: Noise, sensitivity: float, epsilon: float, delta: float) -> float:
    """The smallest scale that OpenDP's own accounting accepts for the sensitivity and the loss."""
    dp = _opendp()
    if noise.mechanism == "laplace":
        return float(
            dp.binary_search_param(
                lambda scale: _measurement("laplace", scale), d_in=int(sensitivity), d_out=float(epsilon)
            )
        )
    return float(
        dp.binary_search_param(
            lambda scale: dp.c.make_fix_delta(
                dp.c.make_zCDP_to_approxDP(_measurement("gaussian", scale)), delta=float(delta)
            ),
            d_in=float(sensitivity),
            d_out=(float(epsilon), float(delta)),
        )
    )


def _draw(column: pa.ChunkedArray, mechanism: str, scale: float) -> np.ndarray:
    values = np.asarray(column.to_numpy()).astype(np.int64)
    if not len(values):
        return values
    return np.asarray(_measurement(mechanism, scale)(values.tolist()), dtype=np.int64)
