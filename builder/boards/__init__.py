"""Latency of operators on the board that a file is for: measured there by a probe, or from published figures.

In the order of the work: work, probe, profile, times.
"""
