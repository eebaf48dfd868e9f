"""Backups of a whole installation, taken while it works (docs/decisions/0058)."""
