"""Benchmarks: `python -m tests.benchmarks.NAME [--quick]` prints one JSON object as its last line.

Belongs here: measurements beside a baseline in the same run. Does not belong here: assertions about time.
"""
