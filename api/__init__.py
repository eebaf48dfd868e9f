"""How people reach Nightshift: HTTP API, Python client, command line, embedded stack."""
