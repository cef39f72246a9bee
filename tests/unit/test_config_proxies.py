"""Which proxies are trusted, as the command line and the file say it."""

import pytest

from queuerelay.config import OPTIONS, load
from queuerelay.errors import ConfigError
from queuerelay.http.forwarded import Trust


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
        ("X-Real-IP", "expected 'x-forwarded-for' or "),
        ("Forwarded,X-Forwarded-For", "either Forwarded or X-Forwarded-*"),
        ("X-Forwarded-For,x-forwarded-for", "each once"),
        ("", "expected 'x-forwarded-for' or "),
    ],
)
def test_what_is_no_field_of_proxies_is_refused(text, expected):
    assert expected in refused(proxy_fields=text)


def test_help_tells_the_defaults():
    described = {option.name: option.described for option in OPTIONS}
    assert described["trusted-proxies"].endswith("[default: none]")
    assert described["proxy-fields"].endswith("[default: X-Forwarded-For, -Proto, -Host]")
