"""The encoder: node vectors, graph backbone, modality heads, loss, training, student, embedding.

Belongs here: everything that torch computes. Does not belong here: how features are made from sources (see `poi`,
`imagery`, `census`, `mobility`). Nothing in this package imports duckdb, h3, geopandas or pydantic at its top, so that
it runs on a bare GPU machine.
"""
