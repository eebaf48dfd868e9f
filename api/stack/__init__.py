"""`nightshift up`: a whole installation on one bare machine, without Docker."""
