"""Programs that measure; each writes `results/benchmarks/<name>.json`. Not run by pytest."""
