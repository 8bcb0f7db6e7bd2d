"""MobCLIP's Dagster definitions.

Belongs here: what runs when, on which partition, with which resources, and what the UI shows. Does not belong here:
pandas, torch or SQL; every asset makes one call into `mobclip_core`.
"""
