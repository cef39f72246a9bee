"""queuerelay: HTTP requests wait in a Redis queue until a worker answers them.

The packages are rooms, and imports go one way, as `tests/unit/test_rooms.py` holds::

    wire  <-  http, processes, broker, config, worker  <-  relay, pool, status
          <-  parts  <-  service  <-  tap
    terminal  <-  overview  <-  cli  ->  client

- `service`: what a daemon is made of, and its parts as services for other applications.
- `parts`: what each of these parts does at start and stop.
- `tap`: ``twistd queuerelay``; the only module that touches the global reactor.
- `cli`: ``queuerelay``, the operator's command; `client` asks a status listener, `overview` and
  `terminal` make lines of what it says.
- `testing`: a broker in memory, for tests of what is built on queuerelay.
- `errors`, `loop`, `waiters`, `backoff`, `seldom`, `eager`: what every room may use.
"""

from typing import Final

__version__: Final = "0.1.0.dev0"
