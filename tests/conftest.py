"""Fixtures that every test may ask for; each starts its server only when asked."""

import hypothesis

# A test that is slow on a busy machine is no failure. The suite tries the same examples each time,
# so that it fails for the change at hand alone; `make explore` looks for new ones.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("suite")

pytest_plugins = (
    "tests.support.parallel",
    "tests.support.seaweed",
    "tests.support.servers",
    "tests.support.ledgers",  # it imports the servers
    "tests.support.installations",
    "tests.support.unit",
)
