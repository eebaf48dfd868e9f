"""Fixtures that every test may ask for; each starts its server only when asked."""

pytest_plugins = (
    "tests.support.parallel",
    "tests.support.seaweed",
    "tests.support.servers",
    "tests.support.ledgers",  # it imports the servers
    "tests.support.installations",
    "tests.support.unit",
)
