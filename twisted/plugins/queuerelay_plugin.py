"""Makes ``twistd queuerelay`` known to Twisted.

No ``__init__.py`` stands beside this file or above it: it would hide Twisted's own packages.
"""

from twisted.application.service import ServiceMaker

queuerelay = ServiceMaker(
    "queuerelay",
    "queuerelay.tap",
    "Holds HTTP requests in a Redis queue until a worker answers",
    "queuerelay",
)
