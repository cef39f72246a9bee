"""Pages of the operator's for errors of ours: ``502.html``, ``503.html``, ``504.html``.

The pages are in memory, bounded, from the start or the last SIGHUP on; no request reads a file.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from queuerelay.errors import ConfigError

#: Statuses that may have a page: errors of workers and queues, not of the client.
STATUSES: Final = (502, 503, 504)
#: Largest page, in bytes.
LARGEST: Final = 256 * 1024

Pages = Mapping[int, bytes]


def load_pages(directory: str, option: str = "--error-pages") -> Pages:
    """The pages in `directory` by status; a status without a file has none.

    Raises `ConfigError` that names the file.
    """
    pages = {}
    try:
        for status in STATUSES:
            path = Path(directory, f"{status}.html")
            if os.path.lexists(path):
                pages[status] = _page(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError.of(
            option, directory, f"a page that can be sent ({path}: {reason})"
        ) from error
    if not pages:
        names = ", ".join(f"{status}.html" for status in STATUSES)
        raise ConfigError.of(option, directory, f"a directory with {names}, or some of them")
    return pages


def _page(path: Path) -> bytes:
    # A pipe would keep us waiting.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a file")
        page = file.read(LARGEST + 1)
    if not page:
        raise ValueError("empty")
    if len(page) > LARGEST:
        raise ValueError(f"larger than {LARGEST} bytes")
    try:
        page.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    return page
