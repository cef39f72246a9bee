"""What operators say of their proxies: the fields in which these tell who a client is."""

from typing import Final

#: The field of RFC 7239, whose element has everything about one hop.
FORWARDED: Final = "forwarded"
#: The de facto fields, each with one value for each hop.
X_FORWARDED: Final = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
)
#: Stands among networks for all peers on Unix sockets.
UNIX: Final = "unix"
