"""How fast the job is, beside the floors of the same machine; run as `python -m benchmarks`."""
