"""What a job is: specs, states, ledger, corpora, storage. No HTTP, no Celery, no torch."""
