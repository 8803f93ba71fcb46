"""Benchmarks of polyhead files and of what people do today: ``python -m benchmarks.bench``."""
