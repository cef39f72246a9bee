"""What programs say between a script and its work: shells, timeout, workers that are done."""

import sys

from tests.helpers.waiting import eventually
from tests.integration.pool.place import Place

TOML = """
    [[pool]]
    name = "k"
    queues = ["k"]
    command = ["./k.sh"]
    tries = 2
    [[pool]]
    name = "t"
    queues = ["t"]
    command = ["timeout", "0.2", "sleep", "60"]
    tries = 1
"""


def test_a_death_below_a_shell_is_a_crash_and_a_timeout_a_time_out(place: Place) -> None:
    place.script(
        "k.sh",
        """
        #!/bin/sh
        cat > /dev/null
        echo try >> tries
        sh -c 'kill -KILL $$'
        exit $?
        """,
    )
    one = place.start("--role", "pool", toml=TOML)
    place.job("killed", "k")
    place.job("late", "t")
    eventually(lambda: len(place.failed) == 2)
    found = {entry["queue"]: entry for entry in place.failed}
    assert place.lines("tries") == ["try"] * 2
    assert found["k"]["error"] == "exit status 137: SIGKILL; tried 2 times"
    assert found["t"]["error"] == "exit status 124: time-out; tried 1 times"
    assert {entry["signal"] for entry in found["k"]["queuerelay"]["attempts"]} == {"SIGKILL"}
    assert "exit status 137: SIGKILL: crash" in one.log


def test_workers_that_take_so_many_jobs_each_are_not_waited_for(place: Place) -> None:
    address = place.server.client().connection_pool.connection_kwargs["path"]
    place.script(
        "worker.py",
        f"""
        #!{sys.executable}
        import socket
        server = socket.socket(socket.AF_UNIX)
        server.connect({address!r})
        def ask(*words):
            server.sendall(b"*%d\\r\\n" % len(words))
            for word in words:
                server.sendall(b"$%d\\r\\n%s\\r\\n" % (len(word), word))
            return server.recv(65536)
        ask(b"BLPOP", b"resque:queue:mp3", b"0")
        ask(b"INCR", b"done")
        """,
    )
    for number in range(40):
        place.job(str(number))
    one = place.start(
        "--role",
        "pool",
        toml="""
        [[pool]]
        name = "r"
        resident = true
        command = ["./worker.py"]
        """,
    )
    eventually(lambda: place.redis.get("done") == b"40")
    assert "ended" not in one.log
