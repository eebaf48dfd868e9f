"""A folder for PYTHONPATH: see ``sitecustomize``."""

DEADLY = "this text ends the process"
