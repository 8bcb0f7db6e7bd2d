"""Readers of what data teams have: tables, polygons, rasters.

Belongs here: opening files of published formats, checking that they hold what the profile says, naming file, column and
rows where they do not. Does not belong here: what happens to the data on cells.
"""
