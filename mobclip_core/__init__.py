"""MobCLIP's library: cells, features, graph, encoder, evaluation.

Belongs here: everything that computes. Does not belong here: orchestration; nothing in this package imports dagster.
"""
