"""Measures what the package costs; run with ``make bench`` or ``python -m benchmarks``."""
