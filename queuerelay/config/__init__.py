"""Configuration: one frozen record, filled from defaults, then the TOML file, then options.

Data goes one way through the modules, and so do imports::

    shape, command  <-  values  <-  option  <-  options  <-  reading, showing
                                   tables  <-

- `shape`: the record, with units and defaults.
- `command`: command lines of pools, with places for what a message says.
- `values`: what a value may be.
- `option`: the shape of an entry in the table of `options`, which are all settings but the keys of
  routes and pools. `tables`: those.
- `reading`: makes the record of file and command line.
- `showing`: the limits in force, for the start log.

Invariants:

1. A setting is a field in `shape` and an entry in `options` or `tables`: the file, the command
   line, ``--help``, the start log and every error message come from these two.
2. What is wrong is refused at the start, in one line that names option, value and what was
   expected.
3. No Twisted here: endpoint strings are checked where they are used.
"""

from queuerelay.config.option import Option
from queuerelay.config.options import OPTIONS
from queuerelay.config.reading import load
from queuerelay.config.shape import (
    DEFAULT_POOL,
    MOST_QUEUED,
    OFF,
    ROLES,
    Config,
    PoolConfig,
    RelayConfig,
    Route,
    StatusConfig,
)
from queuerelay.config.showing import describe
from queuerelay.config.values import Check

__all__ = [
    "DEFAULT_POOL",
    "MOST_QUEUED",
    "OFF",
    "OPTIONS",
    "ROLES",
    "Check",
    "Config",
    "Option",
    "PoolConfig",
    "RelayConfig",
    "Route",
    "StatusConfig",
    "describe",
    "load",
]
