"""Commands in front of a command, as they really run."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from queuerelay.processes import confine
from queuerelay.processes.confine import ProcessLimits, prefix

REPORT = """
import json, os, resource, sys
limits = [resource.getrlimit(kind) for kind in
          (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE)]
print(json.dumps([os.getcwd(), limits, sorted(os.environ), sys.argv[1:]]))
"""


def run(argv: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, capture_output=True, check=False, timeout=60, **options)  # type: ignore[call-overload]


def report(before: tuple[str, ...], *args: str) -> list[object]:
    import json

    command = [sys.executable, "-I", "-S", "-c", REPORT, *args]
    ran = run([*before, *command], env={"A.b": "1", "LC_CTYPE": "C"})
    assert ran.returncode == 0, ran.stderr
    found: list[object] = json.loads(ran.stdout)
    return found


def test_nothing_asked_for() -> None:
    assert prefix("/bin/true") == ()
    assert prefix("/bin/true", limits=ProcessLimits()) == ()


@pytest.mark.parametrize("umask", [0, 0o027, 0o077])
def test_umask(tmp_path: Path, umask: int) -> None:
    code = "import os, sys; print(oct(os.umask(0)), os.getcwd(), sys.argv[1:])"
    command = [sys.executable, "-I", "-S", "-c", code, "", "$0", "a b"]
    before = prefix(sys.executable, directory=str(tmp_path), umask=umask)
    assert run([*before, *command]).stdout.decode() == f"{oct(umask)} {tmp_path} {command[5:]}\n"
    assert run([*before, "/no/such/program"]).returncode == 127


def test_directory(tmp_path: Path) -> None:
    folder = tmp_path / "a 'b' $(c) -d"
    folder.mkdir()
    before = prefix(sys.executable, directory=str(folder))
    cwd, _, environment, args = report(before, "", "x y", "A=1", "--", "$HOME")
    assert cwd == str(folder)
    assert environment == ["A.b", "LC_CTYPE"]
    assert args == ["", "x y", "A=1", "--", "$HOME"]


def test_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "-").mkdir()
    monkeypatch.chdir(tmp_path)
    assert report(prefix(sys.executable, directory="-"))[0] == str(tmp_path / "-")


@pytest.mark.parametrize("why", ["env without -C", "no env", "command with ="])
def test_directory_without_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    executable = "/bin/echo"
    if why == "env without -C":
        monkeypatch.setattr(confine, "_runs", lambda *command: False)
    elif why == "no env":
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "env" else which(name))
    else:
        executable = str(tmp_path / "a=b")
        Path(executable).symlink_to("/bin/pwd")
    folder = tmp_path / "$(touch x) 'y'"
    folder.mkdir()
    before = prefix(executable, directory=str(folder))
    ran = run([*before, executable if why == "command with =" else "/bin/pwd"])
    assert ran.stdout.decode() == f"{folder}\n"
    ran = run([*before, "/bin/echo", "", "a b", "$HOME"])
    assert ran.stdout == b" a b $HOME\n"
    assert run([*before, "/nonexistent/program"]).returncode == 127
    folder.rmdir()
    assert run([*before, "/bin/true"]).returncode == 126


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a directory"):
        prefix("/bin/true", directory=str(tmp_path / "missing"))


def test_limits() -> None:
    before = prefix(
        sys.executable,
        limits=ProcessLimits(address_space=1 << 30, cpu=7, files=64),
    )
    _, limits, environment, _ = report(before)
    assert limits == [[1 << 30, 1 << 30], [7, 12], [64, 64]]
    assert environment == ["A.b", "LC_CTYPE"]


def test_one_limit_and_directory(tmp_path: Path) -> None:
    before = prefix(sys.executable, directory=str(tmp_path), limits=ProcessLimits(files=50))
    cwd, limits, _, _ = report(before)
    assert cwd == str(tmp_path)
    assert limits == [
        list(resource.getrlimit(resource.RLIMIT_AS)),
        list(resource.getrlimit(resource.RLIMIT_CPU)),
        [50, 50],
    ]


def test_address_space_is_bounded() -> None:
    before = prefix(sys.executable, limits=ProcessLimits(address_space=256 << 20))
    ran = run([*before, sys.executable, "-I", "-S", "-c", "bytearray(512 << 20)"])
    assert b"MemoryError" in ran.stderr


def test_processor_time_is_bounded() -> None:
    before = prefix("/bin/sh", limits=ProcessLimits(cpu=1))
    ran = run([*before, "/bin/sh", "-c", "while :; do :; done"])
    assert ran.returncode == -signal.SIGXCPU


@pytest.mark.parametrize(
    "limits",
    [
        ProcessLimits(files=0),
        ProcessLimits(files=1 << 40),
        ProcessLimits(cpu=-1),
        ProcessLimits(address_space=0),
    ],
)
def test_impossible_limits(limits: ProcessLimits) -> None:
    with pytest.raises(ValueError, match="cannot be given here, only 1 "):
        prefix("/bin/true", limits=limits)


def test_missing_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="the command prlimit is needed"):
        prefix("/bin/true", limits=ProcessLimits(files=10))


def test_what_cannot_be_run() -> None:
    assert not confine._runs(os.fspath(Path("/nonexistent/program")))
    assert not confine._runs("/bin/false")
    assert confine._runs("/bin/true")
