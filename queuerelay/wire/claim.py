"""A claim: a message in flight, held under a lease."""

from dataclasses import dataclass


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
