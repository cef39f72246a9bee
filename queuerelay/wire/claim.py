"""A claim: a message in flight, held under a lease."""

from dataclasses import dataclass


def read_meta(meta: bytes) -> tuple[float | None, str]:
    """Since when, in Unix seconds, and by whom a message is held, as `Keys.meta` has it; None where
    it does not say.
    """
    since, _, holder = meta.decode("utf-8", "replace").partition(" ")
    return (int(since) / 1000 if since.isascii() and since.isdigit() else None), holder


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A message in flight, held under a lease."""

    queue: str
    #: Names the claim; whoever holds it may renew, acknowledge, retry or fail the message.
    token: str
    message: bytes
    #: Unix seconds, by Redis, at which it was taken from the queue; 0 where unknown.
    since: float
    #: Who took it, as the holder named itself; "" where unknown.
    holder: str
