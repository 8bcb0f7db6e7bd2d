"""Mobility: from visits, trips and flows to the graph over all cells.

Belongs here: edges by region, the graph of all regions. Does not belong here: learning from the graph (see `encoder`).
"""
