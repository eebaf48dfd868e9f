"""Corpora: where the rows of a bulk job come from and how each format is read."""
