"""Asking a status listener, and reading what it says."""

import http.client
import json
import re
from typing import Any

from tests.helpers.waiting import PATIENCE, eventually

PATHS = ("/", "/status.json", "/history.json", "/failures.json", "/metrics", "/stats.txt")
PROBES = ("/healthz", "/readyz", "/healthz/deep")


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def status(port: int) -> Any:
    """``/status.json``."""
    code, body = ask(port, "/status.json")
    assert code == 200, body
    return json.loads(body)


def listening(port: int) -> int:
    """The port, once Redis has been looked at."""

    def seen() -> bool:
        try:
            return bool(status(port)["redis"]["up"])
        except OSError:
            return False

    eventually(seen)
    return port


def metrics(port: int) -> dict[str, float]:
    """By name and labels, as they are written."""
    code, body = ask(port, "/metrics")
    assert code == 200
    found = {}
    for line in body.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def summed(found: dict[str, float], name: str, **labels: str) -> float:
    """The sum of the series `name` with these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        value
        for series, value in found.items()
        if re.match(rf"{name}(\{{|$)", series) and all(one in series for one in wanted)
    )


def stats(port: int) -> dict[str, int]:
    """``/stats.txt``."""
    code, body = ask(port, "/stats.txt")
    assert code == 200
    pairs = [re.split(r"\+?=", line) for line in body.splitlines()]
    return {name: int(value) for name, value in pairs}
