import dataclasses
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.config import (
    OPTIONS,
    Config,
    RelayConfig,
    Route,
    StatusConfig,
    describe,
    load,
)
from queuerelay.errors import ConfigError
from queuerelay.wire.failure import Kept
from tests.unit.configured import refused

BY_NAME = {option.name: option for option in OPTIONS}


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "queuerelay.toml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


def test_defaults():
    assert load() == Config()
    assert load(None, {}) == load(None, dict.fromkeys(BY_NAME)) == Config()
    relay = Config().relay
    assert (relay.listen, relay.queue, relay.deadline) == (("tcp:8000",), "requests", 60.0)
    assert (relay.max_held, relay.max_held_bytes) == (10_000, 268_435_456)
    assert (relay.max_body, relay.max_queue, relay.drain) == (16_777_216, 50_000, 25.0)
    assert (relay.access_log, relay.legacy_replies, relay.routes) == (None, None, ())


def test_empty_file_is_the_defaults(write):
    assert load(write("")) == Config()


def test_whole_file(write):
    path = write("""
        redis = "redis://:secret@redis.example:6380/2"
        prefix = "shop:"
        [relay]
        listen = ["tcp:8001", "unix:/run/queuerelay.sock"]
        queue = "web"
        deadline = 30            # a whole number of seconds is a number of seconds
        max_held = 5
        max_held_bytes = 2048
        max_body = 1024
        max_queue = 7
        drain = 0
        access_log = "/var/log/queuerelay access.log"
        error_pages = "/srv/error pages"
        server_timing = false
        legacy_replies = "responses"
        [[relay.route]]
        path = "/checkout/"
        queue = "web.high"
        deadline = 20.0
        [[relay.route]]
        method = "POST"
        host = "API.Example.org"
        header = "X-Priority: low"
        queue = "web.low"
    """)
    assert load(path) == Config(
        redis="redis://:secret@redis.example:6380/2",
        prefix="shop:",
        relay=RelayConfig(
            listen=("tcp:8001", "unix:/run/queuerelay.sock"),
            queue="web",
            deadline=30.0,
            max_held=5,
            max_held_bytes=2048,
            max_body=1024,
            max_queue=7,
            drain=0.0,
            access_log="/var/log/queuerelay access.log",
            error_pages="/srv/error pages",
            server_timing=False,
            legacy_replies="responses",
            routes=(
                Route(path="/checkout/", queue="web.high", deadline=20.0),
                Route(
                    method="POST",
                    host="api.example.org",
                    header="X-Priority: low",
                    queue="web.low",
                ),
            ),
        ),
    )
    assert isinstance(load(path).relay.deadline, float)


def test_options_win_over_the_file(write):
    path = write('redis = "a:1"\n[relay]\ndeadline = 10\nqueue = "of-file"\n')
    config = load(
        path,
        {
            "redis": "b:2",
            "deadline": "0.5",
            "max-held": "3",
            "listen": ["tcp:1", "tcp:2"],
            "access-log": None,
        },
    )
    assert config == Config(
        redis="b:2",
        relay=RelayConfig(deadline=0.5, max_held=3, listen=("tcp:1", "tcp:2"), queue="of-file"),
    )


@pytest.mark.parametrize("text", ["false", "False"])
def test_a_flag_is_true_or_false(text):
    assert load(None, {"server-timing": text}).relay.server_timing is False
    assert load(None, {"server-timing": "true"}).relay.server_timing is True


def test_every_field_has_an_option_and_the_other_way_round():
    fields = {field.name for field in dataclasses.fields(Config)} - {
        "relay",
        "pools",
        "status",
        "failed",
    }
    fields |= {f"relay.{field.name}" for field in dataclasses.fields(RelayConfig)}
    fields |= {f"status.{field.name}" for field in dataclasses.fields(StatusConfig)}
    fields |= {f"failed.{field.name}" for field in dataclasses.fields(Kept)}
    options = {option.dotted for option in OPTIONS if option.table != "pool"}
    assert options == fields - {"relay.routes"}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_default_of_each_option_is_valid_and_described(option, write):
    if option.otherwise:
        assert f"default: {option.otherwise}]" in option.described
    elif option.default is not None:
        given = list(option.default) if option.repeatable else str(option.default)
        assert load(None, {option.name: given}) == Config()
        shown = option.default[0] if option.repeatable else f"{option.default}".removesuffix(".0")
        assert f"default: {shown}]" in option.described
    else:
        assert "default: off]" in option.described
    assert option.unit in option.described


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("deadline", "soon", "seconds from 0.001 to 86400"),
        ("deadline", "", "seconds from 0.001 to 86400"),
        ("deadline", "0", "seconds from 0.001 to 86400"),
        ("deadline", "-1", "seconds from 0.001 to 86400"),
        ("deadline", "86400.1", "seconds from 0.001 to 86400"),
        ("deadline", "nan", "seconds from 0.001 to 86400"),
        ("deadline", "inf", "seconds from 0.001 to 86400"),
        ("deadline", "1_0", "seconds from 0.001 to 86400"),
        ("drain", "-0.1", "seconds from 0 to 86400"),
        ("max-held", "0", "a whole number of requests from 1 to 10000000"),
        ("max-held", "1.5", "a whole number of requests from 1 to 10000000"),
        ("max-held", "1e3", "a whole number of requests from 1 to 10000000"),
        ("max-held", "9" * 5000, "a whole number of requests from 1 to 10000000"),
        ("max-body", "0", "a whole number of bytes from 1 to 268435456"),
        ("max-held-bytes", "16MiB", "a whole number of bytes from 1 to 1125899906842624"),
        ("max-queue", "0", "a whole number of messages from 1 to 1099511627776"),
        ("queue", "", "a queue name"),
        ("queue", "a:b", "a queue name"),
        ("queue", "a,b", "a queue name"),
        ("queue", "a b", "a queue name"),
        ("queue", "a\nb", "a queue name"),
        ("queue", "a\x7fb", "a queue name"),
        ("queue", "\udcff", "a queue name"),
        ("queue", "q" * 129, "a queue name of 1 to 128 characters"),
        ("prefix", "", "1 to 128 characters"),
        ("prefix", "a b:", "1 to 128 characters"),
        ("redis", "", "localhost, HOST:PORT"),
        ("redis", "ftp://localhost", "localhost, HOST:PORT"),
        ("redis", "redis://localhost/first", "one database number such as /0"),
        ("access-log", "", "the path of a file"),
        ("access-log", "a\0b", "the path of a file"),
        ("error-pages", "", "the path of a directory"),
        ("server-timing", "no", "true or false"),
        ("server-timing", "1", "true or false"),
        ("legacy-replies", "", "the name of a Redis list"),
        ("legacy-replies", "re sponses", "the name of a Redis list"),
        ("listen", [""], "endpoints such as 'tcp:8000'"),
        ("listen", ["tcp:1", " "], "endpoints such as 'tcp:8000'"),
    ],
)
def test_wrong_option_names_it_with_value_and_expectation(name, value, expected):
    wrong = value[-1] if isinstance(value, list) else value
    text = refused(None, {name: value})
    # What could be made of the text, or the text.
    shown = [repr(wrong)[:200], str(wrong), str(wrong) + ".0"]
    assert text.startswith(tuple(f"--{name}: got {one}" for one in shown))
    assert f", expected {expected}" in text


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("redis = 6379", "redis"),
        ('redis = ["localhost"]', "redis"),
        ("prefix = 1", "prefix"),
        ("relay = 1", "relay"),
        ("[[relay]]", "relay"),
        ("[relay]\ndeadline = '60'", "relay.deadline"),
        ("[relay]\ndeadline = true", "relay.deadline"),
        ("[relay]\ndeadline = nan", "relay.deadline"),
        ("[relay]\ndeadline = inf", "relay.deadline"),
        ("[relay]\nmax_held = true", "relay.max_held"),
        ("[relay]\nmax_held = 1.0", "relay.max_held"),
        ("[relay]\nmax_held = 1979-05-27", "relay.max_held"),
        ("[relay]\nmax_held = 0x1" + "0" * 5000, "relay.max_held"),
        ("[relay]\ndeadline = 0x1" + "0" * 5000, "relay.deadline"),
        ("[relay]\nlisten = 'tcp:8000'", "relay.listen"),
        ("[relay]\nlisten = []", "relay.listen"),
        ("[relay]\nlisten = [8000]", "relay.listen"),
        ("[relay]\nqueue = ['a']", "relay.queue"),
        ("[relay]\naccess_log = false", "relay.access_log"),
        ("[relay]\nroute = 1", "relay.route"),
        ("[relay]\nroute = [1]", "relay.route[1]"),
        ("[[relay.route]]\npath = '/'", "relay.route[1].queue"),
        ("[[relay.route]]\nqueue = 'q'", "relay.route[1]"),
        ("[[relay.route]]\nqueue = 'a:b'\npath = '/'", "relay.route[1].queue"),
        ("[[relay.route]]\nqueue = 'q'\npath = 'x'", "relay.route[1].path"),
        ("[[relay.route]]\nqueue = 'q'\npath = '/a?b'", "relay.route[1].path"),
        ("[[relay.route]]\nqueue = 'q'\nmethod = 'get'", "relay.route[1].method"),
        ("[[relay.route]]\nqueue = 'q'\nmethod = 'G T'", "relay.route[1].method"),
        ("[[relay.route]]\nqueue = 'q'\nhost = 'a/b'", "relay.route[1].host"),
        ("[[relay.route]]\nqueue = 'q'\nhost = 'a:80'", "relay.route[1].host"),
        ("[[relay.route]]\nqueue = 'q'\nhost = '[::1]:80'", "relay.route[1].host"),
        ("[[relay.route]]\nqueue = 'q'\nheader = ''", "relay.route[1].header"),
        ("[[relay.route]]\nqueue = 'q'\nheader = 'A b'", "relay.route[1].header"),
        ("[[relay.route]]\nqueue = 'q'\nheader = 'A:'", "relay.route[1].header"),
        ('[[relay.route]]\nqueue = "q"\nheader = "A: b\\nc"', "relay.route[1].header"),
        (
            "[[relay.route]]\nqueue = 'q'\npath = '/'\n"
            "[[relay.route]]\nqueue = 'q'\npath = '/'\ndeadline = 0",
            "relay.route[2].deadline",
        ),
    ],
)
def test_wrong_value_in_the_file_names_its_key(write, content, name):
    text = refused(write(content))
    assert text.startswith(f"{name}: got ")
    assert ", expected " in text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("redi = 'x'", "redi: no such option; did you mean redis?"),
        ("deadline = 3", "deadline: no such option"),
        ("[relay]\nmax-held = 3", "relay.max-held: no such option; did you mean relay.max_held?"),
        ("[relay]\nmaxheld = 3", "relay.maxheld: no such option; did you mean relay.max_held?"),
        (
            "[[relay.route]]\nqueue = 'q'\nheaders = 'x'",
            "relay.route[1].headers: no such option; did you mean relay.route[1].header?",
        ),
        ("[relais]", "relais: no such option; did you mean relay?"),
        ("[nothing_like_it]", "nothing_like_it: no such option"),
        ('"a\\nb" = 1', "'a\\nb': no such option"),
    ],
)
def test_unknown_key_is_refused_by_name(write, content, text):
    assert refused(write(content)) == text


def test_unknown_option_is_refused_by_name():
    text = refused(None, {"max_hold": "3"})
    assert text == "--max_hold: no such option; did you mean --max-held?"


def test_broken_toml_names_file_line_and_reason(write):
    path = write("[relay]\nqueue = requests\n")
    assert refused(path) == f"{path}:2: Invalid value"
    path = write("a = 1\n[relay")
    assert refused(path).startswith(f"{path}:2: ")
    path = write("[relay]\nqueue = 'a'\nqueue = 'b'\n")
    assert refused(path).startswith(f"{path}:3: Cannot overwrite a value")


def test_file_that_is_not_utf8_names_its_line(write):
    path = write(b"# one\n# \xff\n")
    assert refused(path) == f"{path}:2: not UTF-8"


def test_file_that_cannot_be_digested_is_one_line(write):
    path = write("a = " + "9" * 5000)
    assert refused(path).startswith(f"{path}: ")
    path = write("a = " + "[" * 100_000)
    assert refused(path).startswith(f"{path}")


def test_unreadable_file_names_it_and_the_reason(tmp_path):
    missing = tmp_path / "missing.toml"
    assert refused(str(missing)) == f"{missing}: No such file or directory"
    assert refused(str(tmp_path)) == f"{tmp_path}: Is a directory"
    assert refused("a\0b").startswith("a\0b: ")


def test_password_is_not_shown():
    assert "secret" not in refused(None, {"redis": "redis://user:secret@host:x/1"})


def test_body_that_could_never_be_held_is_refused(write):
    assert refused(write("[relay]\nmax_body = 1000\nmax_held_bytes = 999\n")) == (
        "relay.max_held_bytes: got 999, expected at least the 1000 bytes of relay.max_body"
    )
    assert refused(write("[relay]\nmax_held_bytes = 999\n"), {"max-body": "1000"}) == (
        "relay.max_held_bytes: got 999, expected at least the 1000 bytes of --max-body"
    )


def test_record_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().relay.deadline = 1.0  # type: ignore[misc]


def test_described_limits():
    config = Config(relay=RelayConfig(deadline=0.25, max_held_bytes=3 * 1024, max_body=1000))
    assert describe(config) == [
        ("deadline", "0.25 seconds"),
        ("max-held", "10000 requests"),
        ("max-held-bytes", "3072 bytes (3 KiB)"),
        ("client-share", "0.1 part"),
        ("max-body", "1000 bytes"),
        ("max-reply", "100663296 bytes (96 MiB)"),
        ("max-queue", "50000 messages"),
        ("max-connections", "what the open files allow"),
        ("max-line", "8192 bytes (8 KiB)"),
        ("max-header", "32768 bytes (32 KiB)"),
        ("max-fields", "100 fields"),
        ("header-time", "10 seconds"),
        ("body-time", "30 seconds"),
        ("idle", "60 seconds"),
        ("drain", "25 seconds"),
        ("frame-timeout", "60 seconds"),
        ("send-stall", "60 seconds"),
        ("max-unsent", "1048576 bytes (1 MiB)"),
    ]
    assert ("max-held-bytes", "268435456 bytes (256 MiB)") in describe(Config())


@given(
    deadline=st.floats(0.001, 86400),
    max_held=st.integers(1, 10_000_000),
    queue=st.text(string.ascii_letters + string.digits + "._-é", min_size=1, max_size=128),
)
def test_file_and_options_mean_the_same(tmp_path_factory, deadline, max_held, queue):
    path = Path(tmp_path_factory.getbasetemp()) / "same.toml"
    path.write_text(
        f'[relay]\ndeadline = {deadline!r}\nmax_held = {max_held}\nqueue = "{queue}"\n',
        encoding="utf-8",
    )
    options: dict[str, object] = {
        "deadline": repr(deadline),
        "max-held": str(max_held),
        "queue": queue,
    }
    expected = RelayConfig(deadline=deadline, max_held=max_held, queue=queue)
    assert load(str(path)).relay == load(None, options).relay == expected


@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.text()))
def test_any_text_is_taken_or_refused_in_one_line(options):
    try:
        config = load(None, {**options})
    except ConfigError:
        text = refused(None, options)
        assert text.startswith("--") or "expected" in text
    else:
        assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("options", "taken"),
    [
        ({"reply-prefix": "queuerelay:gate"}, "queuerelay:gate"),
        ({"reply-prefix": "queuerelay:"}, "queuerelay:nodes"),
        ({"reply-prefix": "resque:queue:"}, "resque:"),
        ({"reply-prefix": "mine:", "prefix": "mine:"}, "mine:nodes"),
        ({"reply-prefix": "resp", "legacy-replies": "responses"}, "responses"),
    ],
)
def test_replies_to_jobs_are_apart_from_all_other_keys(options, taken):
    given = options["reply-prefix"]
    expected = f"--reply-prefix: got {given!r}, expected a prefix apart from that of {taken!r}"
    assert refused(None, options).endswith(expected)
    assert load(None, {"reply-prefix": "answers:"}).reply_prefix == "answers:"


def test_imports_no_twisted():
    script = "import sys, queuerelay.config; print([m for m in sys.modules if 'twisted' in m])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
