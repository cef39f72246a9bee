"""Request target and host as CGI and WSGI show them (RFC 3875 4.1, PEP 3333)."""

import re
from typing import Final

#: A whole URI where the request target stands (RFC 9112 3.2.2).
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?@]*@)?([^/?]*)(.*)", re.DOTALL)
#: Host and port (RFC 9110 7.2), which may be empty (RFC 3986 3.2.3); an IPv6 address keeps its
#: brackets (RFC 3875 4.1.14).
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?")
#: Default port of each scheme that a client can come by (RFC 9110 4.2).
DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


def native(text: str) -> str:
    """`text` with one character for one byte; other producers than the relay may not know."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("latin-1")
    return text


def split_target(url: str) -> tuple[str | None, str]:
    """The host where the target names one, and path with query (RFC 9112 3.2)."""
    url = native(url)
    if url == "*":
        # OPTIONS about the server as a whole has no path; REQUEST_URI keeps the asterisk.
        return None, ""
    absolute = None if url.startswith("/") else _ABSOLUTE.fullmatch(url)
    if absolute is not None:
        url = absolute[2]
    if not url.startswith("/"):
        url = f"/{url}"
    return (absolute[1] if absolute is not None else None), url


def server_of(host: str, scheme: str) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT; neither may be empty (RFC 3875 4.1.14, 4.1.15, PEP 3333)."""
    default = DEFAULT_PORTS.get(scheme, "80")
    found = _HOST.fullmatch(host)
    if found is None or not found[1]:
        return "localhost", default
    return found[1], found[2] or default
