"""Fixtures that every test may ask for; each starts its server only when asked."""

import hypothesis

# A test that is slow on a busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = (
    "tests.support.parallel",
    "tests.support.seaweed",
    "tests.support.servers",
    "tests.support.ledgers",  # it imports the servers
    "tests.support.installations",
    "tests.support.unit",
)
