"""What a script started and let go of ends with it where we end it, and with a killed daemon."""

import os
import signal

import pytest

from tests.helpers.processes import alive, family
from tests.helpers.waiting import eventually
from tests.integration.pool.place import Place

#: Ways out of a script's group: a session of its own, twice forked, without an environment of ours
#: but a child still, and deaf to TERM.
SCRIPT = """
    #!/bin/sh
    cat > /dev/null
    touch strays
    start() { "$@" < /dev/null > /dev/null 2>&1 & }
    start setsid sh -c 'echo "$$ session" >> strays; exec sleep 600'
    start sh -c 'setsid sh -c "echo \\$\\$ twice >> strays; exec sleep 600" &'
    start setsid env -i PATH="$PATH" sh -c 'echo "$$ bare" >> strays; while :; do sleep 1; done'
    start setsid sh -c 'trap "" TERM; echo "$$ deaf" >> strays; while :; do sleep 0.1; done'
    start sh -c 'echo "$$ group" >> strays; exec sleep 600'
    while [ "$(wc -l < strays)" -lt 5 ]; do sleep 0.02; done
    echo "$$" >> started
    END
"""
TOML = """
    [[pool]]
    name = "p"
    queues = ["mp3"]
    command = ["./a.sh"]
    timeout = {timeout}
    grace = 1.0
    tries = 1
"""


def named(place: Place) -> dict[str, int]:
    """What the script has started, by the way in which it got out."""
    return {name: int(pid) for pid, name in (line.split() for line in place.lines("strays"))}


@pytest.mark.parametrize("how", ["time-out", "kill -9", "stop"])
def test_nothing_is_left_of_a_script_that_we_end(place: Place, how: str) -> None:
    place.script("a.sh", SCRIPT.replace("END", "exec sleep 600"))
    timeout = 5.0 if how == "time-out" else 600.0
    drain = ("--drain", "0") if how == "stop" else ()
    one = place.start("--role", "pool", *drain, toml=TOML.format(timeout=timeout))
    bystander = os.posix_spawnp("sleep", ["sleep", "600"], os.environ, setsid=True)
    try:
        place.job("1")
        place.started(1)
        strays = named(place)
        assert len(strays) == 5
        assert all(map(alive, strays.values()))
        below = family(one.process.pid)
        if how == "kill -9":
            one.process.kill()
        elif how == "stop":
            one.signal(signal.SIGTERM)
        eventually(lambda: not any(map(alive, strays.values())), lambda: str(named(place)))
        assert alive(bystander)
        if how != "time-out":
            eventually(lambda: not any(map(alive, below)))
    finally:
        os.kill(bystander, signal.SIGKILL)
        os.waitpid(bystander, 0)
        for pid in named(place).values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_what_a_script_leaves_behind_that_ended_well_lives_on(place: Place) -> None:
    place.script("a.sh", SCRIPT.replace("END", "exit 0"))
    place.start("--role", "pool", toml=TOML.format(timeout=600.0))
    place.job("1")
    place.started(1)
    eventually(place.is_quiet)
    try:
        assert all(map(alive, named(place).values()))
    finally:
        for pid in named(place).values():
            os.kill(pid, signal.SIGKILL)
