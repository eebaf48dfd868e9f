"""Bulk work: a corpus is planned into chunks, chunks are computed, and a job is finalized."""
