"""The folder tree is the architecture: which room may use which, and nothing goes in circles."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "queuerelay"

#: Modules at the top that any room may use; workers only those without Twisted.
BASE = (
    "redact",
    "safe_text",
    "errors",
    "own_files",
    "log_format",
    "seldom",
    "eager",
    "backoff",
    "durations",
    "waiters",
    "loop",
)
#: Each room or module at the top, and the rooms that it may import from. A name ends at a dot: that
#: of a room stands for all in it.
MAY_USE = {
    "redact": (),
    "safe_text": (),
    "safe_log": ("safe_text",),
    "errors": ("redact",),
    "redis_source": ("errors",),
    "own_files": (),
    "log_format": ("redact",),
    "daemon_log": ("errors", "own_files", "log_format"),
    "seldom": (),
    "eager": (),
    "backoff": (),
    "durations": (),
    "waiters": (),
    "loop": ("errors", "seldom"),
    "clocks": (),
    "wire": ("errors",),
    "http": (*BASE, "wire"),
    "processes": BASE,
    "broker": (*BASE, "wire"),
    "config": ("errors", "redis_source", "wire"),
    "worker": ("redact", "safe_text", "errors", "redis_source", "backoff", "wire"),
    "relay": (*BASE, "wire", "http", "broker", "config"),
    "pool": (*BASE, "redis_source", "wire", "processes", "broker", "config"),
    "status": (*BASE, "wire", "http", "broker", "config"),
    "testing": ("broker",),
    "parts": (*BASE, "clocks", "wire", "http", "broker", "config", "relay", "pool", "status"),
    "service": (
        *BASE,
        *("wire", "http", "processes", "broker", "config", "relay", "pool", "status", "parts"),
    ),
    "tap": (
        *("redact", "safe_text", "safe_log", "errors", "clocks", "daemon_log", "processes"),
        *("config", "service"),
    ),
    "terminal": ("durations", "safe_text"),
    "client": (),
    "overview": ("terminal", "safe_text"),
    "cli": ("client", "terminal", "overview", "safe_text"),
}
#: The rooms within `status`, and which of them each may import from.
STATUS_MAY_USE = {"collect": (), "actions": ("collect",), "views": ("collect", "actions")}


def modules() -> dict[str, Path]:
    """All modules and packages, by their dotted names."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The modules that the module at `path` imports, inside functions too, and for types alone."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(whole if whole in MODULES else node.module or "")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return tuple(found)


#: By module, those of ours that it imports.
GRAPH = {
    name: sorted({one for one in imports(path) if one in MODULES}) for name, path in MODULES.items()
}


def room(module: str) -> str:
    """The room of a module, "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_place():
    assert {room(name) for name in MODULES} - {""} == set(MAY_USE)


def test_the_table_goes_one_way():
    for name, used in MAY_USE.items():
        for other in used:
            assert name not in MAY_USE[other]
            assert set(MAY_USE[other]) <= {*MAY_USE}
    order = list(MAY_USE)
    assert all(order.index(other) < order.index(name) for name in order for other in MAY_USE[name])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name):
    here = room(name)
    used = {room(other) for other in GRAPH[name]} - {here, ""}
    assert used <= set(MAY_USE.get(here, ())), f"{name} imports from {used}"


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) == "status"))
def test_imports_go_one_way_within_status(name):
    def part(module: str) -> str:
        return (*module.split("."), "")[2] if room(module) == "status" else ""

    here = part(name)
    if here in STATUS_MAY_USE:
        used = {part(other) for other in GRAPH[name]} & STATUS_MAY_USE.keys() - {here}
        assert used <= set(STATUS_MAY_USE[here]), f"{name} imports from {used}"


def test_no_circle():
    left = {name: set(used) - {name} for name, used in GRAPH.items()}
    while ready := [name for name, used in left.items() if not used]:
        for name in ready:
            del left[name]
        for used in left.values():
            used.difference_update(ready)
    assert not left


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name) == "worker"))
def test_workers_import_no_twisted(name):
    reached, look = set(), [name]
    while look:
        module = look.pop()
        reached.add(module)
        look += [one for one in GRAPH[module] if one not in reached]
    foreign = {one.split(".")[0] for module in reached for one in imports(MODULES[module])}
    assert not foreign & {"twisted", "txredisapi", "zope"}


def test_txredisapi_is_the_brokers():
    users = {room(name) for name, path in MODULES.items() if "txredisapi" in {*imports(path)}}
    assert users <= {"broker"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_constructor_takes_no_more_than_six_arguments(name):
    tree = ast.parse(MODULES[name].read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = node.args
            given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
            names = {one.arg for one in given} - {"self"}
            assert len(names) <= 6 or names <= kept(node), f"line {node.lineno}: {names}"


def kept(constructor: ast.FunctionDef) -> set[str]:
    """The arguments that it keeps under their own names. A record, made often and without the cost
    of a dataclass, keeps all.
    """
    return {
        node.value.id
        for node in ast.walk(constructor)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Name)
        and isinstance(target := getattr(node, "target", None) or node.targets[0], ast.Attribute)
        and target.attr == node.value.id
    }


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_fits_in_ones_head(name):
    assert len(MODULES[name].read_text("utf-8").splitlines()) <= 400


def test_the_architecture_page_draws_the_rooms_as_they_are():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    told = {
        name: set(re.findall(r"\w+", used))
        for name, used in re.findall(r"^\| `(\w+)/` \| .* \| ([^|]*) \|$", page, re.M)
    }
    assert set(told) == {name for name in MAY_USE if (PACKAGE / name).is_dir()}
    for name, used in told.items():
        rooms = {*used - {"base"}, *BASE} if "base" in used else used
        assert rooms == set(MAY_USE[name]), name
    named = set(re.findall(r"`(\w+)\.py`", page))
    assert named >= {name for name in MAY_USE if name not in told}


def test_one_class_name_for_one_thing():
    places: dict[str, list[str]] = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name)
    assert not {name: found for name, found in places.items() if len(found) > 1}
