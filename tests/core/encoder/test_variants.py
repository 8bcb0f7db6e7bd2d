from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from mobclip_core.deployment import Deployment
from mobclip_core.encoder.line import build_node_embeddings
from mobclip_core.encoder.variants import VARIANTS, build_encoder_variants, read_variants
from mobclip_core.errors import ContractError, MissingTableError
from mobclip_core.evaluation.representations import VARIANT_INPUTS
from mobclip_core.profile import VariantName
from mobclip_core.store import TableRef

from .two_regions import CELLS, FUSED


def with_variants(deployment, *names):
    evaluation = deployment.profile.evaluation.model_copy(update={"variants": list(names)})
    return Deployment(deployment.profile.model_copy(update={"evaluation": evaluation}), deployment.store)


def test_variants_are_trained_once_and_read_in_order(open_lake):
    plain = open_lake(**FUSED)
    build_node_embeddings(plain)
    one = with_variants(plain, "published")
    assert build_encoder_variants(one).counts["variants_kept"] == 0
    deployment = with_variants(
        plain, "published", "without_poi", "without_mobility", "without_contrast", "adjacency", "lightgcn"
    )
    with pytest.raises(MissingTableError, match="encoder_variants lacks without_poi"):
        read_variants(deployment, CELLS)
    result = build_encoder_variants(deployment)
    assert result.counts["variants_kept"] == 1
    found = read_variants(deployment, CELLS)
    assert list(found) == deployment.profile.evaluation.variants
    assert {vectors.shape for vectors in found.values()} == {(30, 8)}
    flat = [vectors.round(4).tobytes() for vectors in found.values()]
    assert len(set(flat)) == 6
    # the same again, to the same version
    assert build_encoder_variants(deployment).written.data_version == result.written.data_version
    with pytest.raises(ContractError, match="other cells"):
        read_variants(deployment, CELLS[1:])
    # what is no longer wanted is not trained again when it is wanted once more; other options are other variants
    assert build_encoder_variants(one).counts["variants_kept"] == 1
    other = with_variants(open_lake(**{**FUSED, "learning_rate": 0.02}), "published")
    assert build_encoder_variants(other).counts["variants_kept"] == 0
    assert read_variants(plain, CELLS) == {}


def test_a_variant_without_a_modality_does_not_depend_on_it(open_lake):
    deployment = with_variants(open_lake(**FUSED), "without_census", "without_poi")
    build_node_embeddings(deployment)
    build_encoder_variants(deployment)
    before = read_variants(deployment, CELLS)
    census = deployment.store.read(TableRef("census_features", "a"))
    people = pa.array(census["population"].to_numpy() * 7)
    deployment.store.write(
        TableRef("census_features", "a"), census.set_column(1, census.schema.field("population"), people)
    )
    assert build_encoder_variants(deployment).counts["variants_kept"] == 0
    after = read_variants(deployment, CELLS)
    np.testing.assert_array_equal(before["without_census"], after["without_census"])
    assert (before["without_poi"] != after["without_poi"]).any()


def test_every_variant_has_a_name_in_the_profile_and_inputs_in_the_scores():
    assert set(VARIANTS) == set(get_args(VariantName)) <= set(VARIANT_INPUTS)
    assert VARIANT_INPUTS["without_poi"] == {"imagery", "census", "mobility"}
    assert VARIANT_INPUTS["adjacency"] == {"poi", "imagery", "census"}
