#!/usr/bin/env python3
"""A job, in Python: writes the SHA-256 of an uploaded file beside it.

The message's ``args[0]`` is on stdin, as JSON: ``{"file": "picture.jpg"}``. What the exit status
says: 0 it is done; 75 (EX_TEMPFAIL) try it again later; anything else it has failed, as after an
exception. Jobs run at least once: this one does no harm when it runs twice.
"""

import hashlib
import json
import os
import sys
from pathlib import Path


def main() -> int:
    """Do the job on stdin; gives the exit status."""
    job = json.load(sys.stdin)
    name = job.get("file")
    if not isinstance(name, str) or not name or "/" in name:
        print(f"{name!r} is not the name of a file", file=sys.stderr)
        return os.EX_DATAERR
    path = Path(os.environ["UPLOADS"], name)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        print(f"{name} is not uploaded yet", file=sys.stderr)
        return os.EX_TEMPFAIL
    # Nobody sees half a file.
    half = Path(f"{path}.sha256.{os.getpid()}")
    half.write_text(f"{digest}\n")
    half.rename(f"{path}.sha256")
    # The answer, where the message asks for one.
    print(digest)
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
