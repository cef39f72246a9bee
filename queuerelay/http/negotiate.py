"""The format in which a client would rather have an error (RFC 9110 12.5.1).

Pure. Whatever a client sends as ``Accept``, the answer is one of the formats that there are: an
error is better read in another format than not at all (RFC 9110 12.4.1).
"""

import re
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

#: Longest ``Accept`` that is looked at, in bytes; what browsers send is a tenth of it.
_LONGEST: Final = 1024

_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
#: The weight of a media range (RFC 9110 12.4.2).
_WEIGHT: Final = re.compile(rb"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


#: The type of event streams (WHATWG HTML, "Server-sent events").
_EVENTS: Final = b"text/event-stream"


class Format(Enum):
    """The formats of an error; of two that a client names alike, the first."""

    #: A page of the operator's.
    HTML = "html"
    #: ``application/problem+json`` (RFC 9457).
    PROBLEM = "problem"
    TEXT = "text"


#: The media ranges that a format suits, the most precise first. Whoever asks for JSON gets an error
#: as JSON, though its type is another one.
_SUITS: Final = {
    Format.HTML: (b"text/html", b"text/*", b"*/*"),
    Format.PROBLEM: (b"application/problem+json", b"application/json", b"application/*", b"*/*"),
    Format.TEXT: (b"text/plain", b"text/*", b"*/*"),
}


def preferred_format(accept: Sequence[bytes], *, html: bool) -> Format:
    """The format for a client whose ``Accept`` fields are `accept`; HTML only where `html`."""
    if not accept:
        return Format.TEXT
    text = b",".join(accept)
    return _preferred(text, html) if len(text) <= _LONGEST else Format.TEXT


@lru_cache(maxsize=256)
def _preferred(accept: bytes, html: bool) -> Format:
    weights = _weights(accept)
    best, rank = Format.TEXT, (0.0, 0)
    for one in Format:
        if one is Format.HTML and not html:
            continue
        suited = next((suited for suited in _SUITS[one] if suited in weights), None)
        if suited is None or not weights[suited]:
            continue
        # Of equal weights the one that is named more precisely; "anything" is text.
        mine = weights[suited], 2 - suited.count(b"*")
        if mine > rank or (mine == rank and suited == b"*/*"):
            best, rank = one, mine
    return best


def prefers_events(accept: Sequence[bytes]) -> bool:
    """Whether a client's ``Accept`` fields ask for ``text/event-stream`` before all else."""
    # Most fields do not name it at all, and need no parsing.
    text = b",".join(accept)
    return _EVENTS in text.lower() and len(text) <= _LONGEST and _prefers_events(text)


@lru_cache(maxsize=256)
def _prefers_events(accept: bytes) -> bool:
    weights = _weights(accept)
    mine = weights.pop(_EVENTS, 0.0)
    return mine > max(weights.values(), default=0.0)


def _weights(accept: bytes) -> dict[bytes, float]:
    """The weight of each media range; malformed ranges are left out.

    Parameters other than ``q`` do not count: no format of ours has more than one version.
    """
    weights: dict[bytes, float] = {}
    # No parameter of interest is quoted, and what is quoted may have commas and semicolons.
    for element in _QUOTED.sub(b"", accept.lower()).split(b","):
        suited, *parameters = (part.strip(b" \t") for part in element.split(b";"))
        value = 1.0
        for parameter in parameters:
            if parameter.startswith(b"q="):
                weight = _WEIGHT.fullmatch(parameter)
                value = float(weight[1]) if weight is not None else -1.0
        if value >= 0:
            weights[suited] = max(value, weights.get(suited, 0.0))
    return weights
