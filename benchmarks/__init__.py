"""Benchmarks: each compares side by side in one run, interleaved, and prints medians and ratios."""
