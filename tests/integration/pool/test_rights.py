"""Whose rights scripts have, and what they can see of the daemon."""

import json
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from queuerelay.processes import confine
from tests.helpers.daemon import refused
from tests.helpers.processes import children
from tests.helpers.waiting import eventually
from tests.integration.pool.place import Place

#: CI runs as root: a test that is skipped here is a failed one there.
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give another user")

#: Tells on stdout, which is a job's reply, who it is.
SHOW = (
    "cat > /dev/null; id -u; id -g; id -G; echo $HOME $USER; grep NoNewPrivs /proc/self/status; pwd"
)


def shown(place: Place, **pools: str) -> dict[str, list[str]]:
    """What the scripts of pools say of themselves; by name, each with its keys in the file."""
    toml = "".join(
        f'[[pool]]\nname = "{name}"\nqueues = ["{name}"]\ncwd = "/"\n'
        f'command = ["/bin/sh", "-c", "{SHOW}"]\n{more}\n'
        for name, more in pools.items()
    )
    place.start("--role", "pool", toml=toml)
    found = {}
    for name in pools:
        reply_to = f"queuerelay:results:{name}"
        place.job("1", name, reply_to=reply_to)
        taken = place.redis.blpop([reply_to], timeout=30)
        assert taken is not None, place.failed
        found[name] = json.loads(taken[1])["body"].splitlines()
    return found


def test_scripts_get_no_rights_by_running_a_program(place: Place) -> None:
    assert shown(place, plain="")["plain"][4] == "NoNewPrivs:\t1"


def test_where_one_pool_may_the_others_may_not(place: Place) -> None:
    found = shown(place, may="no_new_privs = false", maynot="")
    assert found["may"][4] == "NoNewPrivs:\t0"
    assert found["maynot"][4] == "NoNewPrivs:\t1"


@root
def test_a_pool_with_user_and_group(place: Place) -> None:
    nobody = pwd.getpwnam("nobody")
    found = shown(
        place,
        user='user = "nobody"',
        both=f'user = {nobody.pw_uid}\ngroup = "daemon"',
        group="group = 1",
    )
    uid, gid = str(nobody.pw_uid), str(nobody.pw_gid)
    assert found["user"][:2] == [uid, gid]
    assert "0" not in found["user"][2].split()
    assert found["user"][3:] == [f"{nobody.pw_dir} nobody", "NoNewPrivs:\t1", "/"]
    assert found["both"][:2] == [uid, "1"]
    assert found["group"][:3] == ["0", "1", "1"]


@root
@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('user = "no_such_user"', "there is no user"),
        ('group = "no_such_group"', "there is no group"),
    ],
)
def test_nobody_of_that_name_is_one_line_at_the_start(
    place: Place, tmp_path: Path, more: str, why: str
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(f'[[pool]]\nname = "p"\nqueues = ["q"]\ncommand = ["true"]\n{more}\n')
    options = ("--redis", place.server.url, "--role", "pool", "--config", str(file))
    assert why in refused(*options, cwd=tmp_path)


def test_only_root_gives_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ValueError, match="runs as root"):
        confine.prefix("true", rights=confine.Rights(user="nobody"))


def _read_by_a_child(keep: bool) -> int:
    """The exit status of a program that reads its parent's environment, both another user's."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 9
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        # Becoming another user does it too, and a start undoes that.
        confine._prctl(confine._SET_DUMPABLE, 1)
        if keep:
            confine.keep_secrets()
        quiet = subprocess.DEVNULL
        environ = f"/proc/{os.getpid()}/environ"
        status = subprocess.run(
            ["cat", environ], stdout=quiet, stderr=quiet, check=False
        ).returncode
    finally:
        os._exit(status)


@root
def test_the_environment_of_a_daemon_is_not_its_scripts_to_read() -> None:
    assert _read_by_a_child(keep=False) == 0
    assert _read_by_a_child(keep=True) == 1


def test_the_helpers_of_a_daemon_know_no_secret(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "canary")
    place.script("a.sh", "#!/bin/sh\ncat >> ran\n")
    one = place.start("--role", "pool", "--worker", "./a.sh", "--worker-queues", "mp3")
    place.job("1")
    eventually(lambda: place.lines("ran"))
    helpers = children(one.process.pid)
    assert helpers
    for pid in helpers:
        assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
