"""What the ledger and the queries share, so that neither imports the other."""
