"""Messages that cannot be read: their text is seen, and they are retried mended."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.daemon import ROOT
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually
from tests.integration.pool.place import Place

TOKEN = "0123456789abcdef"
RAW = {
    "surrogate": b'{"class":"Mail","args":[{"preview":"hello \\ud83d"}]}',
    "BOM": b'\xef\xbb\xbf{"class":"Mail","args":[{"preview":"hello"}]}',
    "NaN": b'{"class":"Mail","args":[{"preview":NaN}]}',
}


@pytest.mark.parametrize("raw", RAW)
def test_what_cannot_be_read_is_seen_mended_and_done(place: Place, raw: str) -> None:
    place.script("mail.sh", "#!/bin/sh\ncat >> sent\n")
    credentials = place.directory / "credentials"
    credentials.write_text(f"bearer me {TOKEN}\n")
    credentials.chmod(0o600)
    port = free_port()
    place.start(
        *("--role", "relay,pool,status", "--status", f"tcp:{port}:interface=127.0.0.1"),
        *("--status-credentials", str(credentials), "--worker", "./mail.sh"),
        *("--worker-queues", "mp3"),
    )

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(str(Path(sys.executable).with_name("queuerelay")), "--url"),
                *(f"http://127.0.0.1:{port}", *words),
            ],
            env={**os.environ, "QUEUERELAY_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    place.redis.rpush("resque:queue:mp3", RAW[raw])
    eventually(lambda: place.failed)
    listed = json.loads(eventually(lambda: ask("failed", "list", "--json").stdout))
    (letter,) = listed["items"]
    assert letter["text"] == RAW[raw].decode()
    shown = ask("failed", "show", letter["id"]).stdout
    assert '"class":"Mail","args":[{"preview":' in shown
    # As it is it cannot be run.
    assert ask("failed", "retry", letter["id"]).returncode != 0
    assert ask("failed", "retry", letter["id"], "--args", "{}").returncode != 0
    mended = ask("failed", "retry", letter["id"], "--class", "Mail", "--args", '[{"preview":"ok"}]')
    assert mended.returncode == 0, mended.stderr
    eventually(lambda: place.lines("sent") == ['{"preview":"ok"}'])
    assert place.failed == []
