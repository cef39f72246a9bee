"""queuerelay: HTTP requests wait in a Redis queue until a worker answers them.

The packages are rooms, and imports go one way::

    wire  <-  broker  <-  relay  <-  service  <-  tap
    wire, broker.keys, broker.scripts  <-  worker      (no Twisted there)
"""

from typing import Final

__version__: Final = "0.1.0.dev0"
