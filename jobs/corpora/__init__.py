"""Corpora: where the rows of a job come from, and how each format is read."""
