"""A line of the access log as it must be, whatever clients send."""

import re
from pathlib import Path

#: Groups: address, time, request line, status, bytes, referer, user agent, queue, wait, run, total,
#: end, id.
LINE = re.compile(
    rb"([!-~]+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "
    rb'"([ -!#-~]*)" (\d{3}) (\d+) "([ -!#-~]*)" "([ -!#-~]*)" '
    rb"queue=([!-~]+) wait=(-|\d+\.\d{3}) run=(-|\d+\.\d{3}) total=(-|\d+\.\d{3}) "
    rb"end=(answered|expired|gone|refused|early|aborted) id=([!-~]*)\n"
)


def lines(path: Path) -> list[re.Match[bytes]]:
    """The lines of a file, each of them whole."""
    found = []
    for line in path.read_bytes().splitlines(keepends=True):
        match = LINE.fullmatch(line)
        assert match is not None, line
        found.append(match)
    return found
