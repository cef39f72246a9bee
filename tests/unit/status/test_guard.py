"""Who may act: the file of credentials, cross-site requests, guessing."""

import base64
import os

import pytest
from twisted.internet.task import Clock

from queuerelay.errors import ConfigError
from queuerelay.status.credentials import OPERATE, READ, SUBMIT, Credentials
from queuerelay.status.guard import TRIES, WINDOW, Denied, Guard
from queuerelay.status.route import StatusRequest

TOKEN = "0123456789abcdef"
PASSWORD = "correct horse: battery"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "credentials"
    path.write_text(f"# who\n\nbearer deploy {TOKEN}\nbasic zoë {PASSWORD}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def guard(path, clock):
    return Guard(Credentials(str(path)), clock=clock)


def ask(
    authorization: str | None = None, *, client: str = "192.0.2.1", **headers: str
) -> StatusRequest:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields.setdefault("host", "127.0.0.1:8080")
    if authorization is not None:
        fields["authorization"] = authorization
    return StatusRequest(method="POST", segments=("x",), headers=fields, client=client)


def name_of(credentials: Credentials, authorization: str) -> str | None:
    found = credentials.who(authorization)
    return found and found.name


def status(guard: Guard, asked: StatusRequest) -> int:
    with pytest.raises(Denied) as caught:
        guard.let(asked, OPERATE)
    return caught.value.status


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (f"Bearer {TOKEN}", "deploy"),
        (f"bearer   {TOKEN} ", "deploy"),
        (basic("zoë", PASSWORD), "zoë"),
        (f"Bearer {TOKEN}x", None),
        (f"Bearer {TOKEN[:-1]}", None),
        (f"Basic {TOKEN}", None),
        (basic("zoe", PASSWORD), None),
        (basic("deploy", TOKEN), None),
        (f"Bearer zoë:{PASSWORD}", None),
        ("Basic !!!", None),
        ("Basic /w==", None),
        ("Bearer", None),
        ("", None),
        ("Bearer \ud800", None),
    ],
)
def test_who(path, authorization, name):
    assert name_of(Credentials(str(path)), authorization) == name


@pytest.mark.parametrize(
    "line",
    [
        "token",
        "bearer x",
        f"digest x {TOKEN}",
        f"basic a:b {PASSWORD}",
        "bearer x short",
        "bearer x two words of it",
        "bearer x not-in-ascii-\xc3\xa9",
        "# only a comment",
        "",
        "\xff",
    ],
)
def test_a_wrong_file_is_refused_and_tells_no_secret(tmp_path, line):
    path = tmp_path / "credentials"
    path.write_bytes(line.encode("latin-1"))
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        Credentials(str(path))
    assert "--status-credentials" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in (TOKEN, PASSWORD, "short"))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        Credentials(str(tmp_path / "nothing"))


def test_a_file_that_others_can_read_is_warned_of(path, log_lines):
    path.chmod(0o604)
    Credentials(str(path))
    assert any("can be read or written by others" in line for line in log_lines())


def test_the_file_is_read_again_when_it_has_changed(path, log_lines):
    credentials = Credentials(str(path))
    new = path.with_name("new")
    new.write_text("bearer other abcdefabcdef\n")
    os.replace(new, path)
    assert name_of(credentials, f"Bearer {TOKEN}") is None
    assert name_of(credentials, "Bearer abcdefabcdef") == "other"
    path.write_text("rubbish that is wrong\n")
    assert name_of(credentials, "Bearer abcdefabcdef") == "other"
    path.unlink()
    assert name_of(credentials, "Bearer abcdefabcdef") == "other"
    assert len([line for line in log_lines() if "stay as they were" in line]) == 2


def test_who_is_taken_out_of_the_file_may_no_more(path):
    credentials = Credentials(str(path))
    path.write_text("# nobody, for now\n")
    assert name_of(credentials, f"Bearer {TOKEN}") is None
    path.write_text(f"bearer again {TOKEN}\n")
    assert name_of(credentials, f"Bearer {TOKEN}") == "again"


def test_a_pipe_is_not_waited_for(path):
    credentials = Credentials(str(path))
    path.unlink()
    os.mkfifo(path)
    assert name_of(credentials, f"Bearer {TOKEN}") == "deploy"
    with pytest.raises(ConfigError, match="regular file"):
        Credentials(str(path))


def test_without_a_file_nobody_may():
    guard = Guard(None, clock=Clock())
    assert not guard.writable
    assert status(guard, ask(f"Bearer {TOKEN}")) == 403


HERE = "http://127.0.0.1:8080"


@pytest.mark.parametrize(
    ("scheme", "headers", "expected"),
    [
        # A browser on our own page.
        ("basic", {"sec_fetch_site": "same-origin", "origin": HERE}, None),
        ("basic", {"sec_fetch_site": "same-origin"}, None),
        ("basic", {"origin": HERE}, None),
        ("basic", {"origin": "https://status.example", "host": "status.example"}, None),
        ("basic", {"origin": "https://status.example", "host": "status.example:443"}, None),
        # Another site's page, whatever it says beside it.
        ("basic", {"sec_fetch_site": "cross-site", "origin": HERE}, 403),
        ("basic", {"sec_fetch_site": "same-site"}, 403),
        ("basic", {"sec_fetch_site": "none"}, 403),
        ("bearer", {"sec_fetch_site": "cross-site"}, 403),
        ("basic", {"sec_fetch_site": "same-origin", "origin": "http://evil.example"}, 403),
        ("basic", {"origin": "null"}, 403),
        ("basic", {"origin": ""}, 403),
        ("basic", {"origin": "http://127.0.0.1:8081"}, 403),
        ("basic", {"origin": "http://127.0.0.1"}, 403),
        ("basic", {"origin": f"{HERE}.evil.example"}, 403),
        ("basic", {"origin": f"ftp://{HERE[7:]}"}, 403),
        ("bearer", {"origin": "http://evil.example"}, 403),
        # Neither: programs.
        ("bearer", {}, None),
        ("basic", {}, 403),
        (None, {}, 401),
        (None, {"origin": HERE}, 401),
        (None, {"origin": "http://evil.example"}, 403),
        ("wrong", {}, 401),
    ],
)
def test_cross_site(guard, scheme, headers, expected):
    authorization = {
        "basic": basic("zoë", PASSWORD),
        "bearer": f"Bearer {TOKEN}",
        "wrong": "Bearer 00000000000000",
        None: None,
    }[scheme]
    asked = ask(authorization, **headers)
    if expected is None:
        assert guard.let(asked, OPERATE) in ("zoë", "deploy")
    else:
        assert status(guard, asked) == expected


def test_401_says_how(guard):
    with pytest.raises(Denied) as caught:
        guard.let(ask(), OPERATE)
    assert "Bearer" in caught.value.headers["WWW-Authenticate"]
    assert "Basic" in caught.value.headers["WWW-Authenticate"]


def test_guessing_is_slowed_by_address(guard, clock):
    for _ in range(TRIES):
        assert status(guard, ask("Bearer 00000000000000")) == 401
        clock.advance(1.0)
    with pytest.raises(Denied) as caught:
        guard.let(ask(f"Bearer {TOKEN}"), OPERATE)
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) == WINDOW - TRIES + 1
    assert guard.let(ask(f"Bearer {TOKEN}", client="192.0.2.2"), OPERATE) == "deploy"
    clock.advance(WINDOW - TRIES)
    assert guard.let(ask(f"Bearer {TOKEN}"), OPERATE) == "deploy"


@pytest.mark.parametrize(
    ("addresses", "other"),
    [
        ([f"2001:db8::{number:x}" for number in range(TRIES)], "2001:db8:0:1::1"),
        ([f"fe80::{number:x}%eth{number}" for number in range(TRIES)], "::1"),
        (["192.0.2.1", "::ffff:192.0.2.1"] * (TRIES // 2), "::ffff:192.0.2.2"),
    ],
)
def test_a_host_has_many_addresses(guard, addresses, other):
    for address in addresses:
        assert status(guard, ask("Bearer 00000000000000", client=address)) == 401
    assert status(guard, ask(f"Bearer {TOKEN}", client=addresses[0])) == 429
    assert guard.let(ask(f"Bearer {TOKEN}", client=other), OPERATE) == "deploy"


def test_missing_credentials_are_no_guess(guard):
    for _ in range(TRIES + 1):
        assert status(guard, ask()) == 401


def test_addresses_are_not_remembered_without_bound(guard):
    for number in range(3000):
        status(guard, ask("Bearer 00000000000000", client=f"address {number}"))
    assert len(guard._wrong) <= 1024


# Scopes


def test_a_credential_is_good_for_its_scopes_alone(path, clock):
    path.write_text(
        f"bearer all {TOKEN}\nbearer:submit cron {TOKEN}1\nbasic:read,operate ann {PASSWORD}\n"
    )
    guard = Guard(Credentials(str(path)), clock=clock)
    ann = {"origin": "http://127.0.0.1:8080"}
    for authorization, scopes, more in (
        (f"Bearer {TOKEN}", {READ, OPERATE, SUBMIT}, {}),
        (f"Bearer {TOKEN}1", {SUBMIT}, {}),
        (basic("ann", PASSWORD), {READ, OPERATE}, ann),
    ):
        for scope in (READ, OPERATE, SUBMIT):
            asked = ask(authorization, **more)
            if scope in scopes:
                guard.let(asked, scope)
                continue
            with pytest.raises(Denied) as caught:
                guard.let(asked, scope)
            assert caught.value.status == 403
            assert scope in caught.value.text
        assert guard.trusts(ask(authorization)) is (READ in scopes)


@pytest.mark.parametrize("kind", ["bearer:", "bearer:all", "bearer:read,", "basic:read;submit"])
def test_a_scope_that_there_is_not_is_refused(tmp_path, kind):
    (tmp_path / "file").write_text(f"{kind} x {TOKEN}\n")
    with pytest.raises(ConfigError, match=r"line 1.*operate, read, submit") as caught:
        Credentials(str(tmp_path / "file"))
    assert TOKEN not in str(caught.value)


def test_reading_is_for_everybody_or_for_those_with_credentials(path, clock):
    credentials = Credentials(str(path))
    Guard(credentials, clock=clock).let_read(ask())
    private = Guard(credentials, clock=clock, private=True)
    private.let_read(ask(f"Bearer {TOKEN}"))
    # A browser may attach a name and a password to any page's link: nothing is done by reading.
    private.let_read(ask(basic("zoë", PASSWORD), sec_fetch_site="cross-site"))
    with pytest.raises(Denied) as caught:
        private.let_read(ask())
    assert (caught.value.status, "WWW-Authenticate" in caught.value.headers) == (401, True)


def test_whoever_guesses_is_not_helped_by_reading(guard, clock):
    for _ in range(TRIES):
        assert not guard.trusts(ask("Bearer 00000000000000"))
    assert status(guard, ask("Bearer 00000000000000")) == 429
    assert guard.trusts(ask(f"Bearer {TOKEN}", client="192.0.2.2"))
    assert not guard.trusts(ask())
