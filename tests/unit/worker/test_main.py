"""Options, and the application that they name."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from queuerelay.errors import ConfigError
from queuerelay.wire.url import parse
from queuerelay.worker.main import _address, _log_to_stderr, _parser, load_application, main

ROOT = Path(__file__).parents[3]
#: Without a parent: the test process itself is not to be forked.
ALONE = ("--timeout", "0")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """A directory of the application's, and our logger and sys.modules as before."""
    (tmp_path / "good_app.py").write_text(
        "class site:\n    class inner:\n        def app(e, s): return []\nnumber = 3\n"
    )
    (tmp_path / "raising_app.py").write_text("raise ValueError('in the module')\n")
    (tmp_path / "exiting_app.py").write_text("raise SystemExit(5)\n")
    (tmp_path / "importing_app.py").write_text("import no_such_thing_at_all\n")
    (tmp_path / "syntax_app.py").write_text("def\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    logger = logging.getLogger("queuerelay")
    state = (list(logger.handlers), logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate = state[0], state[1]
    logger.setLevel(state[2])
    for name in set(sys.modules) - before:
        if name.endswith("_app"):
            del sys.modules[name]


def test_loads_from_the_current_directory(tmp_path):
    app = load_application("good_app:site.inner.app")
    assert app({}, None) == []
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "the following arguments are required: MODULE:APP"),
        (["good_app"], "got 'good_app', expected MODULE:ATTRIBUTE"),
        (["good_app:"], "got 'good_app:', expected MODULE:ATTRIBUTE"),
        ([":app"], "got ':app', expected MODULE:ATTRIBUTE"),
        (["nowhere_app:app"], "No module named 'nowhere_app'"),
        (["nowhere.at.all:app"], "No module named 'nowhere'"),
        (["good_app.sub:app"], "No module named 'good_app.sub'"),
        ([".relative:app"], "got '.relative:app', expected a module"),
        (["good_app:other"], "expected an attribute that exists"),
        (["good_app:site.other"], "expected an attribute that exists"),
        (["good_app:number"], "expected a WSGI callable, not a int"),
        (["--lease", "soon", "good_app:site"], "--lease: got 'soon', expected a number of seconds"),
        (["--lease", "0", "good_app:site"], "--lease: got '0'"),
        (["--lease", "nan", "good_app:site"], "--lease: got 'nan'"),
        (["--max-reply", "1.5", "good_app:site"], "--max-reply: got '1.5', expected a number of"),
        (["--requests", "-1", "good_app:site"], "--requests: "),
        (["--queues", "a,,b", "good_app:site"], "--queues: got 'a,,b', expected names"),
        (["--queues", "a:b", "good_app:site"], "--queues: got 'a:b', expected names"),
        (["--log-level", "loud", "good_app:site"], "--log-level: "),
        (["--nonsense", "good_app:site"], "--nonsense"),
        (["--redi", "localhost", "good_app:site"], "--redi"),
        (["--redis", "gopher://x", "good_app:site"], "--redis: got 'gopher://x', expected"),
        (["--redis", "embedded", "good_app:site"], "--redis: got 'embedded', expected"),
        (["--timeout", "never", "good_app:site"], "--timeout: got 'never', expected a number"),
        (["--timeout", "-1", "good_app:site"], "--timeout: got '-1', expected a number"),
        (["--chdir", "/no/such/place", "good_app:site"], "--chdir: got '/no/such/place'"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(options, said, capsys):
    assert main([*ALONE, *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("queuerelay-worker: wrong configuration: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_password_is_not_shown(capsys):
    assert main(["--redis", "redis://user:s3cret@host:x/0", "good_app:site"]) == 1
    assert "s3cret" not in capsys.readouterr().err


def test_without_redis_py(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "redis", None)
    assert main(["good_app:site"]) == 1
    assert capsys.readouterr().err.endswith("pip install 'queuerelay[worker]'\n")


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("raising_app", "ValueError"),
        ("exiting_app", "SystemExit"),
        ("importing_app", "ModuleNotFoundError"),
        ("syntax_app", "SyntaxError"),
    ],
)
def test_a_module_that_raises_shows_its_traceback_and_one_line(module, error, capsys):
    assert main([*ALONE, f"{module}:app"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert f"{module} cannot be imported" in lines[0]
    assert "Traceback (most recent call last):" in lines[1]
    assert any(f"{module}.py" in line for line in lines)
    assert f"a module without errors (it raised {error})" in lines[-1]


def test_help_says_unit_and_default(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--help"])
    assert exit_.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in (
        "--redis URL",
        "(default: localhost)",
        "--queues A,B",
        "(default: requests)",
        "--lease SECONDS",
        "(default: 10.0)",
        "--max-reply BYTES",
        "(default: 67108864)",
        "--requests N",
        "--timeout SECONDS",
        "(default: deadline)",
        "--prefix",
        "(default: queuerelay:)",
        "--reply-prefix",
        "(default: queuerelay:results:)",
        "--chdir DIR",
        "--log-level",
        "(default: info)",
    ):
        assert part in said


def test_a_reply_prefix_that_could_be_confused_is_refused(capsys):
    assert main(["app:application", "--reply-prefix", "queuerelay:gate"]) == 1
    said = "--reply-prefix: got 'queuerelay:gate', expected a prefix apart from that of"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"), [("deadline", None), ("0", 0.0), ("0.5", 0.5), (None, None)]
)
def test_a_timeout_is_the_deadlines_or_in_seconds(text, seconds):
    given = [] if text is None else ["--timeout", text]
    assert _parser().parse_args([*given, "m:a"]).timeout == seconds


def test_queues_keep_their_order_and_come_once():
    options = _parser().parse_args(["--queues", "b, a,b", "m:a"])
    assert options.queues == ("b", "a")


def test_an_embedded_directory_may_be_relative(tmp_path):
    expected = f"unix://{tmp_path}/var/valkey.sock"
    assert _address(parse("embedded:var")).redacted == expected
    assert _address(parse("redis://a,b")) == parse("redis://a,b")
    with pytest.raises(ConfigError):
        _address(parse("embedded"))


def test_no_twisted_in_a_worker():
    """The application's process is its own: no reactor, no Redis client of ours but redis-py."""
    script = (
        "import sys\n"
        "import queuerelay.worker.main, queuerelay.worker.loop, queuerelay.worker.lease\n"
        "found = {name.split('.')[0] for name in sys.modules}\n"
        "bad = found & {'twisted', 'txredisapi', 'zope', 'hyperlink', 'automat'}\n"
        "sys.exit(repr(bad) if bad else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_foreign_words_are_one_line_of_the_log(capsys):
    _log_to_stderr("info")
    log = logging.getLogger("queuerelay.worker.loop")
    evil = "\x1b[2J\r\u202e\n2026-11-28 05:00:00,000 INFO 1 forged"
    log.warning("a job of class %r on %s", evil, evil)
    try:
        raise ValueError(evil)
    except ValueError:
        log.exception("failed: %s", evil)
    lines = capsys.readouterr().err.split("\n")[:-1]
    assert all(char.isprintable() or char == "\t" for char in "".join(lines))
    assert sum(line.startswith("2026-11-28 05") for line in lines) == 0
    assert lines[0].endswith("\\x1b[2J\\r\\u202e\\n2026-11-28 05:00:00,000 INFO 1 forged")
