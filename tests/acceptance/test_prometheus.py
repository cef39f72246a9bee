"""What Prometheus and Grafana make of ours: promtool on a live scrape, on the alerts, and on every
expression of the dashboard.
"""

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import cast

import pytest

from tests.acceptance.stage import Stage
from tests.helpers.ports import free_port
from tests.helpers.waiting import eventually

ETC = Path(__file__).parents[2] / "etc"


@pytest.fixture(scope="session")
def promtool() -> str:
    """The program; Debian has it in the package prometheus, `.ci/run` takes it from there."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs promtool on PATH")
    return found


def run(*command: str, given: bytes = b"", cwd: Path | None = None) -> str:
    ended = subprocess.run(
        command, input=given, cwd=cwd, capture_output=True, timeout=60, check=False
    )
    said = (ended.stdout + ended.stderr).decode()
    assert ended.returncode == 0, said
    return said


def scrape(port: int) -> bytes:
    """The metrics, once Redis has been looked at."""

    def scraped() -> bytes | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            content: bytes = response.read()
        return content if b"queuerelay_redis_up 1.0" in content else None

    return cast(bytes, eventually(scraped))


def test_a_live_scrape_is_as_promtool_wants_it(promtool: str, stage: Stage) -> None:
    port = free_port()
    stage.relay("--status", f"tcp:{port}:interface=127.0.0.1", "--worker", "true")
    said = run(promtool, "check", "metrics", given=scrape(port))
    assert said == "", said


def test_the_alerts_are_valid_and_do_what_they_say(promtool: str) -> None:
    here = ETC / "prometheus"
    assert "11 rules found" in run(promtool, "check", "rules", "alerts.yml", cwd=here)
    assert "SUCCESS" in run(promtool, "test", "rules", "alerts_test.yml", cwd=here)
    # Each alert is there in the tests, both silent and told.
    tests = (here / "alerts_test.yml").read_text()
    for name in re.findall(r"alert: (\w+)", (here / "alerts.yml").read_text()):
        assert tests.count(f"alertname: {name}") >= 2, name


def expressions() -> dict[str, str]:
    """PromQL of the dashboard and of the alerts, by where it stands."""
    board = json.loads((ETC / "grafana" / "queuerelay.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = variable["definition"]
    return found


def test_the_dashboard_asks_for_what_there_is(promtool: str, stage: Stage, tmp_path: Path) -> None:
    port = free_port()
    stage.relay("--status", f"tcp:{port}:interface=127.0.0.1", "--worker", "true")
    text = scrape(port).decode()
    there = set(re.findall(r"^(queuerelay_\w+?)(?:\{| )", text, re.MULTILINE))
    alerts = (ETC / "prometheus" / "alerts.yml").read_text()
    asked = {"alerts": alerts, **expressions()}
    for where, expression in asked.items():
        for name in re.findall(r"\bqueuerelay_\w+", expression):
            assert name in there, f"{where}: {name}"
    # As rules, promtool reads them.
    rules = []
    for number, expression in enumerate(expressions().values()):
        if not expression.startswith("label_values"):
            valid = expression.replace("$__rate_interval", "5m")
            rules.append({"record": f"dashboard:panel:{number}", "expr": valid})
    file = tmp_path / "dashboard.yml"
    # JSON is YAML too.
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in run(promtool, "check", "rules", str(file))
