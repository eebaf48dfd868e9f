"""What each kind of bulk job computes for a row, one module per kind."""
