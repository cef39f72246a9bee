"""Header fields as CGI and WSGI show them: variables (RFC 3875 4.1.18, PEP 3333)."""

from collections.abc import Iterable
from typing import Final

from queuerelay.wire.target import native

#: The length is the body's own; by HTTP_PROXY many programs choose their proxy (CVE-2016-5385,
#: "httpoxy").
_NO_VARIABLE: Final = frozenset({"CONTENT-LENGTH", "PROXY"})


def field_variables(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The fields as variables, values one character for one byte.

    Repeated fields are joined with a comma (RFC 9110 5.3), cookies with a semicolon (RFC 6265bis
    5.8.3). Names with ``_`` are left out: ``X_Forwarded_For`` would pass for ``X-Forwarded-For``.
    """
    fields: dict[str, list[str]] = {}
    for field, text in headers:
        name = field.upper()
        if "_" in name or name in _NO_VARIABLE:
            continue
        name = "CONTENT_TYPE" if name == "CONTENT-TYPE" else f"HTTP_{name.replace('-', '_')}"
        fields.setdefault(name, []).append(native(text))
    return {
        name: ("; " if name == "HTTP_COOKIE" else ", ").join(texts)
        for name, texts in fields.items()
    }
