"""A folder for PYTHONPATH: see ``sitecustomize``."""

DEADLY = "this text ends the process"
HELD, HELD_WHILE = "this text holds the process", "NIGHTSHIFT_TEST_HELD_WHILE"
"""A text at which the engine waits while the file that the variable names is there."""
