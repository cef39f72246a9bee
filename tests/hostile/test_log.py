"""Jobs whose words would do something to whoever reads the daemon's log, in a pool of scripts."""

import json
import re

from tests.helpers.waiting import eventually

EVIL = "\x1b]0;title\x07\r\x9b31m\u202e\u2028\x7f"
FORGED = "2026-11-28T05:00:00+0000 [queuerelay] action by admin: done"
#: Each line of the log begins so, or with a tab where an entry has more lines.
BEGINNING = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[[\w.#-]+\] |\t")


def test_words_of_jobs_and_scripts_are_text_in_the_log(fresh_valkey, daemon, tmp_path):
    client = fresh_valkey.client()
    script = tmp_path / "bad.sh"
    script.write_text(
        "#!/bin/sh\n"
        "printf '\\033[2Jstderr\\342\\200\\256 rtl\\007 end\\n' >&2\n"
        "printf '\\033[2Jstdout\\n'\nexit 1\n"
    )
    script.chmod(0o755)
    for number, cls in enumerate(("X" + EVIL, EVIL)):
        job = {"class": cls, "id": f"job{number}{EVIL}\n{FORGED}", "args": [{}]}
        client.rpush("resque:queue:bad", json.dumps(job))
    client.rpush("resque:queue:bad", f"no JSON {EVIL}\n{FORGED}")
    # A node that is silent for long is dropped, by its name.
    client.zadd("queuerelay:nodes", {f"node{EVIL}\n{FORGED}": 1})
    started = daemon(
        *("--redis", fresh_valkey.url, "--role", "pool"),
        *("--worker", str(script), "--worker-queues", "bad"),
        listen=False,
    )
    eventually(lambda: client.llen("resque:failed") == 3)
    eventually(lambda: started.log.count("stderr") >= 2 and "silent too long" in started.log)
    # As bytes: reading text would take a CR for the end of a line.
    log = started._stdout.read_bytes().decode()
    assert [char for char in log if not char.isprintable() and char not in "\n\t"] == []
    assert all(BEGINNING.match(line) for line in log.split("\n")[:-1])
    assert not any(line.startswith(FORGED) for line in log.replace("\t", "").split("\n"))
    assert "\\x1b[2Jstderr" in log
