"""Benchmarks of polyhead and of its alternatives: ``python -m benchmarks.bench``."""
