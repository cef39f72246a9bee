"""What operators say of their proxies: the fields in which these tell who a client is."""

from typing import Final

#: RFC 7239; its element has everything about one hop.
FORWARDED: Final = "forwarded"
#: One value for each hop in each of them; de facto.
X_FORWARDED: Final = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
)
#: Stands among networks for all peers on Unix sockets.
UNIX: Final = "unix"
