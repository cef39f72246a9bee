"""The pages say what is so: options, links, files, invariants and the tests of promises.

That architecture.md draws the rooms as they are is in `test_rooms`.
"""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from queuerelay.config.options import OPTIONS
from queuerelay.config.shape import PoolConfig
from queuerelay.config.tables import POOL_KEYS, RESIDENT_ONLY, ROUTE_KEYS, SCRIPT_ONLY
from queuerelay.tap import Options
from queuerelay.worker.main import _parser

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "queuerelay"
DOCS = ROOT / "docs"
#: Pages at the top, and all of docs/; by the names that tests have for them.
PAGES = {
    str(path.relative_to(ROOT)): path for path in (*ROOT.glob("*.md"), *sorted(DOCS.glob("*.md")))
}
CONFIGURATION = (DOCS / "configuration.md").read_text("utf-8")
ARCHITECTURE = (DOCS / "architecture.md").read_text("utf-8")
SECURITY = (DOCS / "security.md").read_text("utf-8")
PROMISES = (DOCS / "promises.md").read_text("utf-8")


# --- Reading pages -------------------------------------------------------------------------------


def prose(path: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)


def rows(page: str, first: str) -> list[list[str]]:
    """The cells of all tables of `page` whose first column is headed `first`, without backticks."""
    found, inside = [], False
    for line in page.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        # A bar within a cell would be escaped; there is none.
        cells = [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]
        if cells[0] == first:
            inside = True
        elif inside and not set(cells[0]) <= {"-"}:
            found.append(cells)
    return found


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number, unique = 0, name
        while unique in found:
            number += 1
            unique = f"{name}-{number}"
        found.add(unique)
    return found


def links(path: Path) -> Iterator[str]:
    """The targets of its links that lead somewhere in the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if not re.match(r"[a-z]+:", target):
            yield unquote(target)


def test_rows_and_anchors_find_what_there_is(tmp_path):
    """The helpers themselves: on an empty find every test below would pass."""
    page = tmp_path / "page.md"
    page.write_text("# A `b` c's\n\n## Same\n\n## Same\n\n| x | y |\n| --- | --- |\n| `1` | 2 |\n")
    assert anchors(page) == {"a-b-cs", "same", "same-1"}
    assert rows(page.read_text(), "x") == [["1", "2"]]
    assert len(PAGES) >= 12
    assert all(list(links(path)) for name, path in PAGES.items() if name == "README.md")


# --- Links and files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    path = PAGES[name]
    broken = []
    for target in links(path):
        place, _, anchor = target.partition("#")
        there = (path.parent / place).resolve() if place else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert not broken, ", ".join(broken)


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_exist(name):
    path = PAGES[name]
    missing = []
    for text in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(path)):
        # In capitals a part of a path stands for any, as in lua/NAME.lua.
        if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*/?", text) or re.search(r"/[A-Z]+\.\w", text):
            continue
        top = text.partition("/")[0]
        ours = "/" in text and ((ROOT / top).exists() or (PACKAGE / top).exists())
        # Elsewhere a file without a folder may be the reader's own.
        ours |= text.endswith(".py") and ("/" in text or name == "docs/architecture.md")
        places = (ROOT / text, PACKAGE / text, path.parent / text)
        if ours and not any(place.exists() for place in places):
            missing.append(text)
    assert not missing, ", ".join(missing)


def test_every_page_can_be_found_from_the_readme():
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in links(ROOT / "README.md")}
    assert set(PAGES.values()) - linked == {ROOT / "README.md"}


# --- Options and keys ----------------------------------------------------------------------------


def shown(default: object) -> str:
    """A default as the page writes it; "" for one that only words can tell."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if default or default == 0 else ""


def test_options_stand_in_the_configuration_page_with_unit_and_default():
    told = {cells[0]: cells[1:4] for cells in rows(CONFIGURATION, "option")}
    expected = {}
    for option in OPTIONS:
        particulars = re.findall(r"\[(?:.*; )?default: ([^\]]*)\]$", option.described)
        # The three of the pool without a file have no key.
        key = "" if option.table == "pool" else option.dotted
        expected[f"--{option.name}"] = [key, option.unit, *particulars]
    flags = {f"--{name}" for name in ("config", "check")}
    assert flags <= {f"--{row[0]}" for row in (*Options.optParameters, *Options.optFlags)}
    assert set(told) - set(expected) == flags
    assert {name: told.get(name) for name in expected} == expected


def test_options_that_may_be_repeated_say_so():
    told = {cells[0]: cells[-1] for cells in rows(CONFIGURATION, "option")}
    repeatable = {name.removeprefix("--") for name, text in told.items() if "repeatable" in text}
    assert repeatable == {option.name for option in OPTIONS if option.repeatable}


def test_keys_of_routes_stand_in_the_configuration_page():
    told = [cells[0] for cells in rows(CONFIGURATION, "key of [[relay.route]]")]
    assert told == list(dict.fromkeys(told))
    assert set(told) == set(ROUTE_KEYS)


def test_keys_of_pools_stand_in_the_configuration_page_with_their_defaults():
    told = {cells[0]: cells[2] for cells in rows(CONFIGURATION, "key of [[pool]]")}
    assert set(told) == set(POOL_KEYS)
    for field in dataclasses.fields(PoolConfig):
        if field.name not in POOL_KEYS:
            continue
        if field.name == "max":
            # Where it is not given it is the size.
            assert told[field.name] == "that of size"
            continue
        if field.default is not dataclasses.MISSING:
            expected = shown(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            expected = shown(field.default_factory())
        else:
            expected = "required"
        if expected:
            assert told[field.name] == expected, field.name
        else:
            assert re.fullmatch(r"[a-z' ]+", told[field.name]), field.name


def test_keys_that_a_resident_pool_does_not_take_are_listed():
    _, _, rest = CONFIGURATION.partition("A resident pool takes none of ")
    refused, _, only = rest.partition("\n\n")[0].partition("; only it takes")
    assert set(re.findall(r"`(\w+)`", refused)) == set(SCRIPT_ONLY)
    assert set(re.findall(r"`(\w+)`", only)) == set(RESIDENT_ONLY)


def test_options_of_the_worker_stand_in_the_configuration_page():
    told = {cells[0]: cells[2] for cells in rows(CONFIGURATION, "option of the worker")}
    parser = _parser()
    actions = {
        action.option_strings[-1]: action.default
        for action in parser._actions
        if action.option_strings and action.dest not in ("help", "version")
    }
    assert set(told) == set(actions)
    for name, default in actions.items():
        one = default[0] if isinstance(default, list | tuple) else default
        assert told[name] == ("none" if one is None else shown(one)), name


# --- The architecture ----------------------------------------------------------------------------


def test_the_index_of_invariants_has_every_module_that_states_some():
    _, _, index = ARCHITECTURE.partition("\n## Index of invariants\n")
    told = set(re.findall(r"^\| \[[^\]]+\]\(\.\./queuerelay/([^)]+)\) \| \S", index, re.M))
    stating = set()
    for path in PACKAGE.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        if re.search(r"^(1\. |Invariant: )", docstring, re.M):
            stating.add(str(path.relative_to(PACKAGE)))
    assert not stating - told, f"not in the index: {sorted(stating - told)}"
    assert not told - stating, f"state nothing: {sorted(told - stating)}"


# --- The promises --------------------------------------------------------------------------------


def named_tests() -> list[tuple[str, Path, list[str]]]:
    """For each row of the page the number of its promise, the file, and what is named of it."""
    found = []
    for number, section in re.findall(r"^## (\d)\. .*?\n(.*?)(?=^## |\Z)", PROMISES, re.M | re.S):
        for place, tests in re.findall(
            r"^\| \[[^\]]+\]\(\.\./([^)]+)\) \| (.*) \|$", section, re.M
        ):
            found.append((number, ROOT / place, re.findall(r"`(\w+)…?`", tests)))
    return found


def names_of_tests(path: Path) -> list[str]:
    """The names of the tests of a file."""
    return re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text("utf-8"), re.M)


def test_promises_are_proved_by_tests_that_exist():
    named = named_tests()
    assert {number for number, _, _ in named} == set("1234567")
    for _, path, names in named:
        found = names_of_tests(path)
        # A state machine of Hypothesis is a test without a function.
        assert found or re.search(r"\w\.TestCase\b", path.read_text("utf-8")), path
        for name in names:
            assert any(one.startswith(name) for one in found), f"{path.name}: {name}"


def test_every_test_of_a_promise_stands_beside_it():
    told = {(number, path) for number, path, _ in named_tests()}
    proving = {
        (number, path)
        for path in (ROOT / "tests").rglob("test_*.py")
        for number in re.findall(r"def test_promise_(\d)_", path.read_text("utf-8"))
    }
    assert proving <= told


def test_each_attack_has_a_test_and_each_hostile_test_its_attack():
    attacks = rows(SECURITY, "attack")
    assert len(attacks) > 20
    named = set()
    for attack, _, tests in attacks:
        found = re.findall(r"\]\(\.\./(tests/[^)]+)\)", tests)
        assert found, attack
        assert all(names_of_tests(ROOT / one) for one in found), attack
        named.update(found)
    hostile = {str(one.relative_to(ROOT)) for one in (ROOT / "tests/hostile").glob("test_*.py")}
    assert hostile <= named


def test_the_readme_has_each_promise():
    _, _, section = (ROOT / "README.md").read_text("utf-8").partition("\n## Promises\n")
    numbers = re.findall(r"^(\d)\. ", section.partition("\n## ")[0], re.M)
    assert numbers == re.findall(r"^## (\d)\. ", PROMISES, re.M)
