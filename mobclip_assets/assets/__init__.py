"""The assets, one module for each group of the UI.

Belongs here: a decorator, a docstring for people and one call into the core for each asset. Does not belong here:
logic.
"""
