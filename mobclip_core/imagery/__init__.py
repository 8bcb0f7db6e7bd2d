"""Imagery: raster windows, image encoders, and the steps that make the imagery tables.

Import from the modules: `raster`, `features`, `vision`, `steps`.
"""
