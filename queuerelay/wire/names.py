r"""Names of queues and of job classes: one rule for each, for whoever takes one.

The configuration, the actions of the status listener and its OpenAPI document take the same names.
A queue's name stands between colons in keys, between commas in Resque's worker ids and in one line
of a log, so it has none of these. The patterns are for `re` and, between ``^`` and ``$``, for JSON
Schema.
"""

import re
from typing import Final

#: Pattern of a queue's name: neither blanks nor controls, and no halves of characters, which
#: are bytes that are no UTF-8.
QUEUE_NAME: Final = r"[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff:,]{1,128}"
#: The text of errors that says what a queue's name is expected to be.
QUEUE_NAME_EXPECTED: Final = "1 to 128 characters without ':', ',' and blanks"
#: Pattern of a job's class, as Ruby, Python, PHP and JavaScript name classes.
CLASS_NAME: Final = r"[A-Za-z_][A-Za-z0-9_:.\\]{0,127}"

_QUEUE_NAME: Final = re.compile(QUEUE_NAME)
_CLASS_NAME: Final = re.compile(CLASS_NAME)


def is_queue_name(text: str) -> bool:
    """Whether a queue may be named so."""
    return _QUEUE_NAME.fullmatch(text) is not None


def is_class_name(text: str) -> bool:
    """Whether the class of a job may be named so."""
    return _CLASS_NAME.fullmatch(text) is not None
