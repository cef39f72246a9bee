"""The users of Redis that docs/operations.md has a line for."""

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def users() -> dict[str, list[str]]:
    """The rules of each user, as ``ACL SETUSER`` takes them."""
    found = {}
    for line in re.findall(r"^user .*", _PAGE.read_text("utf-8"), re.MULTILINE):
        _, name, *rules = re.findall(r"\([^)]*\)|\S+", line)
        found[name] = rules
    return found


def allowed(rules: list[str]) -> set[str]:
    """The commands that the rules allow, those in selectors apart."""
    return {rule[1:] for rule in rules if rule.startswith("+")}
