"""argv templates, programs, environments."""

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.config.command import ARGUMENT_BOUND, Template, split_command
from queuerelay.errors import CannotStart, ConfigError, MessageError
from queuerelay.pool.environment import base_environment, message_environment
from queuerelay.pool.program import find_program


def template(*command, fields=True):
    return Template(command, option="pool[1].command", fields=fields)


def expand(element, argument):
    return template("x", element).expand(argument)[1]


def refused(*command, fields=True):
    with pytest.raises(ConfigError) as caught:
        template(*command, fields=fields)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix("wrong configuration: ")


def unreadable(element, argument):
    with pytest.raises(MessageError) as caught:
        expand(element, argument)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix("a message on a queue cannot be understood: ")


# --- Templates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("./resize.php --id={id}", ("./resize.php", "--id={id}")),
        ("php -r 'echo 1;' \"a b\"", ("php", "-r", "echo 1;", "a b")),
        ("x $HOME `id` | y; *", ("x", "$HOME", "`id`", "|", "y;", "*")),
        ("", ()),
    ],
)
def test_split(text, argv):
    assert split_command(text, option="--worker") == argv


@pytest.mark.parametrize(("text", "why"), [("a 'b", "no closing quotation"), ("a\\", "no escaped")])
def test_split_refuses_half_a_quotation(text, why):
    with pytest.raises(ConfigError, match=rf"--worker: got .*, expected a command line: {why}"):
        split_command(text, option="--worker")


@pytest.mark.parametrize(
    ("element", "argument", "expected"),
    [
        ("--id={id}", {"id": "a b;$(x)"}, b"--id=a b;$(x)"),
        ("--id={id}", {"id": "-rf"}, b"--id=-rf"),
        ("{id}", {"id": ""}, b""),
        ("{id}", {"id": "caf\xe9"}, b"caf\xc3\xa9"),
        ("{id}", {"id": 7}, b"7"),
        ("--id={id}", {"id": -7}, b"--id=-7"),
        ("{id}", {"id": 0}, b"0"),
        ("{id}", {"id": 2**70}, b"1180591620717411303424"),
        ("{id}", {"id": 0.5}, b"0.5"),
        ("{id}", {"id": True}, b"true"),
        ("{id}", {"id": False}, b"false"),
        ("{a}-{b_2}{c-d}", {"a": 1, "b_2": "x", "c-d": "{a}"}, b"1-x{a}"),
        ("{{}}", {}, b"{}"),
        ('{{"id":{id}}}', {"id": 7}, b'{"id":7}'),
        ("{{id}}", {"id": 7}, b"{id}"),
        ("{{{id}}}", {"id": 7}, b"{7}"),
        ("", {}, b""),
        ("plain", None, b"plain"),
    ],
)
def test_expand(element, argument, expected):
    assert expand(element, argument) == expected


@pytest.mark.parametrize(
    ("element", "shown"),
    [
        ("{}", "{}"),
        ("--id={}", "{} in --id={}"),
        ("{a.b}", "{a.b}"),
        ("{a b}", "{a b}"),
        ("{0}", "{0}"),
        ("{a!r}", "{a!r}"),
        ("{a:>8}", "{a:>8}"),
        ("{a", "{a"),
        ("a}", "} in a}"),
        ("}", "}"),
        ("{", "{"),
        ("{a}}", "} in {a}}"),
        ("{{a}", "} in {{a}"),
        ("{é}", "{é}"),
    ],
)
def test_unknown_placeholder_is_refused_by_name(element, shown):
    assert refused("x", element).startswith(
        f"pool[1].command: got {shown!r}, expected placeholders such as '{{id}}'"
    )


def test_refused_commands():
    expected = "a command: a program and its arguments"
    assert refused() == f"pool[1].command: got [], expected {expected}"
    assert refused("", "x") == f"pool[1].command: got ['', 'x'], expected {expected}"
    assert refused("x", "a\0") == "pool[1].command: got 'a\\x00', expected no NUL"
    own = "pool[1].command: got '{id}.sh', expected no placeholder in the program's own name"
    assert refused("{id}.sh") == own
    resident = "pool[1].command: got '--a={id}', expected no placeholder without a message"
    assert refused("x", "--a={id}", fields=False) == resident
    assert template("{{x}}", "{{", fields=False).expand(None) == [b"{x}", b"{"]


def test_fields_and_program():
    one = template("./a{{b", "{x}-{y}", "{x}", "z")
    assert (one.program, one.fields) == ("./a{b", {"x", "y"})


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ({}, "{id}: args[0] has no such key"),
        (None, "{id}: args[0] is not an object"),
        ([1], "{id}: args[0] is not an object"),
        ("id", "{id}: args[0] is not an object"),
        ({"id": None}, "{id}: expected a text, a number, true or false in args[0], got null"),
        ({"id": []}, "{id}: expected a text, a number, true or false in args[0], got list"),
        ({"id": {}}, "{id}: expected a text, a number, true or false in args[0], got dict"),
        ({"id": "a\0b"}, "{id}: a NUL cannot be passed to a script"),
        ({"id": "-rf"}, "{id}: what begins with '-' is an option"),
        *(
            ({"id": number}, "{id}: what begins with '-' is an option")
            for number in (-5, -0.0, -1.5e-10, -(2**70), float("-inf"))
        ),
        ({"id": "--x=y"}, "{id}: what begins with '-' is an option"),
        ({"id": "-"}, "{id}: what begins with '-' is an option"),
        ({"id": 10**5000}, "{id}: a number that is much too large"),
    ],
)
def test_unreadable_message_names_the_field(argument, why):
    assert unreadable("{id}", argument) == why


def test_text_and_number_are_never_an_option():
    for value in ("-rf", -5):
        after = template("x", "--", "{id}").expand({"id": value})
        assert after == [b"x", b"--", str(value).encode()]
        assert template("x", "--", "{id}.{id}").expand({"id": value})[2].startswith(b"-")
    both = "{a}, {id}: what begins with '-' is an option"
    assert unreadable("{a}{id}", {"a": "-", "id": "rf"}) == both
    assert unreadable("{a}{id}", {"a": "", "id": "-rf"}) == both
    assert unreadable("{a}{id}", {"a": -5, "id": "rf"}) == both
    assert unreadable("{a}{id}", {"a": "", "id": -5}) == both
    assert unreadable("{id}.png", {"id": -5}) == "{id}: what begins with '-' is an option"
    assert expand("-{id}", {"id": "-x"}) == b"--x"


def test_what_execve_refuses_is_refused_first():
    assert expand("{id}", {"id": "é" * (ARGUMENT_BOUND // 2)})
    assert unreadable("{a}{id}", {"a": 1, "id": "é" * (ARGUMENT_BOUND // 2 + 1)}).startswith(
        "{a}, {id}: 131073 bytes are too many for an argument"
    )


def test_bytes_that_are_not_utf8_stay_what_they_are():
    assert template("x", os.fsdecode(b"\xff")).expand(None) == [b"x", b"\xff"]
    assert expand("{id}", {"id": "\ud800"}) == b"?"


NAMES = st.text(string.ascii_letters + "_", min_size=1, max_size=5)
SCALARS = st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans()


@given(element=st.text("ab{}-.é") | st.text(), argument=st.dictionaries(NAMES, SCALARS) | SCALARS)
def test_any_element_is_refused_or_expanded_to_one_argument(element, argument):
    try:
        made = template("x", element)
    except ConfigError:
        assert set("{}\0") & set(element)
        return
    try:
        argv = made.expand(argument)
    except MessageError as error:
        text = str(error)
    else:
        text = ""
        assert len(argv) == 2
        assert b"\0" not in argv[1]
    assert not text or any(f"{{{name}}}" in text for name in made.fields)


@given(name=NAMES, value=st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_any_text_arrives_unchanged(name, value):
    assert expand(f"--{name}={{{name}}}", {name: value}) == f"--{name}={value}".encode()


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_doubled_braces_are_the_way_to_write_any_text(text):
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert expand(escaped, None) == text.encode()


# --- Programs ------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path):
    """Writes a file, executable by default, and returns its path."""

    def script(name, content=b"#!/bin/sh\n", mode=0o755):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        return str(path)

    return script


def not_startable(program, *, path="/nowhere", cwd=None):
    with pytest.raises(CannotStart) as caught:
        find_program(program, path=path, cwd=cwd)
    text = str(caught.value)
    assert "\n" not in text
    return text.removeprefix("a program cannot be started: ")


def test_program_by_path(script, tmp_path):
    path = script("a.sh")
    assert find_program(path, path="") == path
    assert find_program("./a.sh", path="", cwd=str(tmp_path)) == path
    (tmp_path / "sub").mkdir()
    assert find_program("../a.sh", path="", cwd=str(tmp_path / "sub")) == path


def test_program_in_path(script, tmp_path):
    path = script("two/a.sh")
    entries = f"{tmp_path}/one::{tmp_path}/two"
    assert find_program("a.sh", path=entries) == path
    assert find_program("a.sh", path="two", cwd=str(tmp_path)) == path
    script("one/a.sh", mode=0o644)
    os.chmod(tmp_path / "one" / "a.sh", 0)
    (tmp_path / "one" / "a.sh").unlink()
    (tmp_path / "one" / "a.sh").mkdir()
    assert find_program("a.sh", path=entries) == path
    assert not_startable("a.sh", path=f"{tmp_path}/one") == f"{tmp_path}/one/a.sh is a directory"


def test_no_program(script, tmp_path):
    assert not_startable("a.sh", path="/x:/y") == "a.sh is not in the PATH /x:/y"
    script("a.sh")
    # Not from the current directory, although an empty entry says so to a shell.
    assert not_startable("a.sh", path=":", cwd=str(tmp_path)) == "a.sh is not in the PATH :"
    missing = str(tmp_path / "missing")
    assert not_startable(missing) == f"{missing}: No such file or directory"
    assert not_startable(str(tmp_path)) == f"{tmp_path} is a directory"
    assert not_startable("/dev/null") == "/dev/null is no file"
    assert not_startable("/a\0b").startswith("/a\0b: ")
    plain = script("plain", mode=0o644)
    assert not_startable(plain) == f"{plain} is not executable; chmod +x may help"


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        (b"#!/no/such/php\n", "/no/such/php"),
        (b"#! /no/such/php -q\n", "/no/such/php"),
        (b"#!\t/no/such\tx\n", "/no/such"),
        # Written on Windows.
        (b"#!/bin/sh\r\necho\r\n", "'/bin/sh\\r'"),
    ],
)
def test_missing_interpreter_is_named(script, first, shown):
    path = script("a.sh", first)
    assert not_startable(path) == f"{path}: its interpreter {shown} does not exist"


@pytest.mark.parametrize("first", [b"#!/bin/sh -e\n", b"#! /bin/sh", b"#!", b"", b"\x7fELF\0"])
def test_other_beginnings_are_left_to_the_kernel(script, first):
    assert find_program(script("a.sh", first), path="")


def test_directory(script, tmp_path):
    path = script("a.sh")
    missing = str(tmp_path / "missing")
    what_to_do = "; make it, or change the pool's cwd"
    assert not_startable(path, cwd=missing) == f"the directory {missing} does not exist{what_to_do}"
    assert not_startable("x", cwd=path) == f"the directory {path} is not a directory{what_to_do}"
    (tmp_path / "link").symlink_to(missing)
    link = str(tmp_path / "link")
    told = f"the directory {link} is a link to {missing}, which does not exist{what_to_do}"
    assert not_startable(path, cwd=link) == told


# --- Environments --------------------------------------------------------------------------------


def test_base_environment_is_explicit():
    inherited = {
        b"PATH": b"/bin",
        b"HOME": b"/root",
        b"LANG": b"C.UTF-8",
        b"LC_TIME": b"\xff",
        b"TZ": b"UTC",
        b"SECRET": b"1",
        b"RAILS_ENV": b"production",
        b"LD_PRELOAD": b"x",
    }
    env = {"HOME": "/srv", "EXTRA": "é"}
    assert base_environment(inherited, env=env, pass_env=["RAILS_ENV", "NOT_THERE"]) == {
        b"PATH": b"/bin",
        b"HOME": b"/srv",
        b"LANG": b"C.UTF-8",
        b"LC_TIME": b"\xff",
        b"TZ": b"UTC",
        b"RAILS_ENV": b"production",
        b"EXTRA": b"\xc3\xa9",
    }
    assert base_environment({}, env={}, pass_env=[]) == {b"PATH": b"/usr/local/bin:/usr/bin:/bin"}


def test_message_environment():
    assert message_environment(message_id="a", queue="q", attempt=2, deadline=1790000060.1234) == {
        b"QUEUERELAY_ID": b"a",
        b"QUEUERELAY_QUEUE": b"q",
        b"QUEUERELAY_ATTEMPT": b"2",
        b"QUEUERELAY_DEADLINE": b"1790000060.123",
    }
    for none in (None, float("inf")):
        got = message_environment(message_id="\0\ud800é", queue="q", attempt=1, deadline=none)
        assert b"QUEUERELAY_DEADLINE" not in got
        assert got[b"QUEUERELAY_ID"] == b"?\xc3\xa9"
