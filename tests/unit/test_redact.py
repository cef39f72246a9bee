"""What is shown has no secrets in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queuerelay.errors import ConfigError
from queuerelay.redact import redact, redact_command

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"redis://u:{SECRET}@h:1/2", "redis://u:***@h:1/2"),
        (f"redis://:{SECRET}@h", "redis://:***@h"),
        (f"at redis://:{SECRET}@h, and so on", "at redis://:***@h, and so on"),
        (f"unix://u:{SECRET}@/run/s?db=1", "unix://u:***@/run/s?db=1"),
        (f"/srv/redis:/u:{SECRET}@h/0: No such file", "/srv/redis:***@h/0: No such file"),
        (f"attribute '//u:{SECRET}@h/0'", "attribute '//u:***@h/0'"),
        (f"REDISS://u:{SECRET}@h", "REDISS://u:***@h"),
        (f"amqp://u:a@b:{SECRET}@h", "amqp://u:***@h"),
        (f"redis://u:12/{SECRET}@h", "redis://u:***@h"),
        (f"redis://u:#?{SECRET}@h", "redis://u:***@h"),
        (f"sentinel://u:{SECRET}@a:1,b:2/main", "sentinel://u:***@a:1,b:2/main"),
        (f"redis://a,redis://u:{SECRET}@b", "redis://a,redis:***@b"),
        (
            f"https://h/?to=redis%3A%2F%2Fu%3A{SECRET}%40h",
            "https://h/?to=redis%3A%2F%2Fu%3A***%40h",
        ),
        (f"redis%3a//:{SECRET}@h", "redis%3a//:***@h"),
        (f"redis://h/0?password={SECRET}&db=1", "redis://h/0?password=***&db=1"),
        (f"redis://h?sentinel_password={SECRET}", "redis://h?sentinel_password=***"),
        (f"h?PassWord%3D{SECRET}", "h?PassWord%3D***"),
        (f"REDIS_PASSWORD={SECRET} worker", "REDIS_PASSWORD=*** worker"),
        (f"h?auth=u:{SECRET}&x=1", "h?auth=u:***&x=1"),
        (f"h?user=u%3A{SECRET}", "h?user=u%3A***"),
        (f"sh -c 'redis-cli -a {SECRET} PING'", "sh -c 'redis-cli -a *** PING'"),
        (f"--pass {SECRET} x", "--pass *** x"),
        (f"{{'password': '{SECRET}', 'db': 1}}", "{'password': '***', 'db': 1}"),
        (
            f"ERR unknown command 'AUTH', with args beginning with: 'u' '{SECRET}'",
            "ERR unknown command 'AUTH', with args beginning with: ***",
        ),
    ],
)
def test_secrets_are_hidden(text, shown):
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "./resize.php --id={id}",
        "redis://u@h:6379/0",
        "http://host:80/@user",
        "mail someone@example.org: 100%",
        "unix:///run/x.sock",
        "--tokens=5 --password-file=/run/secrets/redis",
        "the password is wrong",
    ],
)
def test_what_has_no_secrets_stays(text):
    assert redact(text) == text


def test_commands():
    argv = ["/usr/bin/redis-cli", "-a", SECRET, "--pass", SECRET, "--token", f"{SECRET} x", "-a"]
    assert redact_command(argv) == "/usr/bin/redis-cli -a *** --pass *** --token *** -a"
    argv = ["worker", "--redis", f"redis://:{SECRET}@h", "-a", "b", f"--api-key={SECRET}"]
    assert redact_command(argv) == "worker --redis redis://:***@h -a b --api-key=***"
    assert redact_command([]) == ""


@given(password=st.text(st.characters(exclude_categories=("Z", "C")), min_size=12))
def test_no_password_of_a_url_is_left(password):
    # It must not be part of the rest by chance.
    password = f"~{password}~"
    assert password not in redact(f"say redis://user:{password}@host:1/2 again")


def test_an_error_hides_it_before_it_is_cut_off():
    long = f"redis://u:{SECRET}{'x' * 300}@h"
    assert SECRET not in str(ConfigError.of("--worker", f"run {long}", "x"))
    assert SECRET not in str(ConfigError.of("redis", [long], "x"))
