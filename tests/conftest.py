"""What all tests share: the janitor, real servers, a real browser."""

import hypothesis

pytest_plugins = [
    "tests.helpers.directories",
    "tests.helpers.janitor",
    "tests.helpers.logs",
    "tests.helpers.redis",
    "tests.acceptance.browser",
]

# No test depends on how fast the machine is, and a failure tells how to repeat it.
hypothesis.settings.register_profile("queuerelay", deadline=None, print_blob=True)
hypothesis.settings.load_profile("queuerelay")
