"""Configuration: one frozen record, filled from defaults, then the TOML file, then options."""

from queuerelay.config.options import (
    DEFAULT_POOL,
    OFF,
    OPTIONS,
    ROLES,
    Check,
    Config,
    Option,
    PoolConfig,
    RelayConfig,
    Route,
    StatusConfig,
    _pools,
    describe,
    load,
)

__all__ = [
    "DEFAULT_POOL",
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
    "_pools",
    "describe",
    "load",
]
