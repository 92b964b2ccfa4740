"""Benchmarks of the job beside the floors of the same machine: `python -m benchmarks`."""

FOLDER = "BENCH_FLOOR"
"""Environment variable with the folder of the floor DAG's signal and of the marks of its tasks."""
SIGNAL = "signal.json"
