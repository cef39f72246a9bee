"""Which proxies are trusted, as the command line and the file say it."""

import pytest

from queuerelay.config import OPTIONS, load
from queuerelay.errors import ConfigError
from queuerelay.http.forwarded import Trust
from queuerelay.wire.proxies import X_FORWARDED


def refused(**options):
    with pytest.raises(ConfigError) as caught:
        load(None, {name.replace("_", "-"): text for name, text in options.items()})
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text.removeprefix("wrong configuration: ")


def test_nobody_is_trusted_by_default():
    relay = load().relay
    assert relay.trusted_proxies == ()
    assert relay.proxy_fields == ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
    Trust(relay.trusted_proxies, relay.proxy_fields)


def test_command_line_and_file_mean_the_same(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(
        '[relay]\ntrusted_proxies = ["10.0.0.0/8", "2001:db8::1", "unix"]\n'
        'proxy_fields = ["X-Forwarded-For", "x-forwarded-port"]\n'
    )
    options = {
        "trusted-proxies": "10.0.0.0/8,2001:db8::1,unix",
        "proxy-fields": "x-forwarded-for,X-FORWARDED-PORT",
    }
    relay = load(str(path)).relay
    assert relay == load(None, options).relay
    assert relay.trusted_proxies == ("10.0.0.0/8", "2001:db8::1", "unix")
    assert relay.proxy_fields == ("x-forwarded-for", "x-forwarded-port")
    assert load(None, {"proxy-fields": "Forwarded"}).relay.proxy_fields == ("forwarded",)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.0.0.1/8", "localhost", "10.0.0.0/33", "10.0.0", "::/0", "0.0.0.0/0", "*", "UNIX"),
        *("167772160", "10.0.0.0/8 10.1.0.0/16", "1" * 5000, "::1%eth0/64", "10.0.0.0/8,,unix"),
    ],
)
def test_what_is_no_network_is_refused(text):
    assert refused(trusted_proxies=text).startswith("--trusted-proxies: got ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("X-Forwarded-Fro", "did you mean 'x-forwarded-for'?"),
        ("X-Forwarded-Hosts", "did you mean 'x-forwarded-host'?"),
        *(
            (name, "expected the name of a field that proxies may set, such as 'X-Forwarded-For'")
            for name in (
                *("", "X_Forwarded_User", "X-User:", "X User", "Käse", "Host", "Proxy", "Via"),
                *("Content-Length", "Connection", "Proxy-Authorization", "X-Request-Id"),
            )
        ),
        ("Forwarded,X-Forwarded-For", "either Forwarded or X-Forwarded-*"),
        ("X-Forwarded-For,x-forwarded-for", "each once"),
    ],
)
def test_what_is_no_field_of_proxies_is_refused(text, expected):
    assert expected in refused(proxy_fields=text)


def test_further_fields_may_be_named():
    def named(text):
        return load(None, {"proxy-fields": text}).relay.proxy_fields

    users = ("x-forwarded-user", "x-forwarded-client-cert")
    assert named("X-Forwarded-User,X-Forwarded-Client-Cert") == (*X_FORWARDED[:3], *users)
    assert named("X-Forwarded-For,X-Forwarded-User") == ("x-forwarded-for", "x-forwarded-user")
    assert named("Forwarded,X-Forwarded-User") == ("forwarded", "x-forwarded-user")
    for name in ("Email", "Groups", "Prefix", "Access-Token", "Preferred-Username", "Protocol"):
        assert named(f"X-Forwarded-{name}")[-1] == f"x-forwarded-{name.lower()}"
    for name in ("X-Real-IP", "Remote-User", "X-Auth-Request-Email", "Client-Cert"):
        assert named(name)[-1] == name.lower()


def test_help_tells_the_defaults():
    described = {option.name: option.described for option in OPTIONS}
    assert described["trusted-proxies"].endswith("[default: none]")
    assert described["proxy-fields"].endswith("[default: X-Forwarded-For, -Proto, -Host]")
