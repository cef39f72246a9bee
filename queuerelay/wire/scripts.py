"""The Lua scripts, by name: `lua/*.lua`, each with its KEYS and ARGV explained at its top.

Plain text for any client: relay and pool send them through txredisapi, workers through redis-py.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

#: All of them, as files are named.
NAMES: Final = (
    "ack",
    "beat",
    "bury",
    "claim",
    "delay",
    "depth",
    "fail",
    "failures",
    "fence",
    "frame",
    "move",
    "pause",
    "peek",
    "promote",
    "prune",
    "push",
    "reap",
    "renew",
    "requeue",
    "retry",
    "trim",
)


@cache
def source(name: str) -> str:
    """The text of the script `name`, one of `NAMES`."""
    return (files(__package__) / "lua" / f"{name}.lua").read_text("utf-8")


@cache
def sha(name: str) -> str:
    """The name under which a server knows the script once it was loaded: its SHA-1, in hex."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
