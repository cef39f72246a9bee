"""``X-Request-Id``: the client's own id where that is sane, else ours; in every answer."""

import os
import re
from collections.abc import Sequence
from typing import Final

#: An id of a client's that is taken over: safe in a log line, in a shell and in a header.
_SANE: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")


def request_id(given: Sequence[bytes] | None) -> bytes:
    """The id for a request whose ``X-Request-Id`` fields are `given`."""
    if given and len(given) == 1 and _SANE.fullmatch(given[0]) is not None:
        return given[0]
    return os.urandom(12).hex().encode("ascii")
