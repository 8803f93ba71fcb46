"""What a polyhead file costs beside what people do today: ``python -m benchmarks.bench``."""
