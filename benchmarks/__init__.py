"""How fast the job is, beside the floors of the same machine; run as `python -m benchmarks`."""

FOLDER = "BENCH_FLOOR"
"""Environment variable: the folder of the floor's signal and of the marks of its tasks."""
SIGNAL = "signal.json"
