"""Checks of a loaded model before its first row."""
