"""What Prometheus scrapes: a catalogue of metrics, the counts of a process, facts of the ledger."""
