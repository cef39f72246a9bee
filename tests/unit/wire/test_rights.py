"""The ACL lines of docs/operations.md allow each role what its scripts do, also where they seldom
go; tests/integration/relay/test_rights.py tries the rest.
"""

import re
from fnmatch import fnmatchcase

import pytest

from queuerelay.wire import commands
from queuerelay.wire.dead_letter import Requeue
from queuerelay.wire.keys import Keys
from queuerelay.wire.scripts import NAMES, source
from tests.helpers.acl import allowed, users

_LEASES = {"claim", "renew", "ack", "retry", "fail", "reap"}
_NODE = {"beat", "bury"}
_FENCED = {"fence", "push"}
SCRIPTS = {
    "producer": set(),
    "worker": _LEASES | {"frame"},
    "pool": _LEASES | _NODE | {"delay", "promote", "depth", "prune"},
    "relay": _NODE
    | {"reap", "retry", "fail", "ack", "peek", "move", "depth", "promote", "prune"}
    | _FENCED
    | {"trim"},
    "status": {"depth", "failures"},
    "operator": {"depth", "failures", "pause", "requeue"} | _FENCED,
    "daemon": {*NAMES} - {"frame"},
}


K, RESULTS, INBOX = Keys(), "queuerelay:results:x", "queuerelay:inbox:x"
#: Runs of each script, with all the keys that it may have.
CALLS = {
    "ack": [commands.ack(K, "q", "t", reply_to=key, reply=b"") for key in (RESULTS, INBOX)],
    "beat": [commands.beat(K, "n", b"", life=1, inbox_life=1, silence=1)],
    "bury": [commands.bury(K, "n", silence=1, inbox_life=1, legacy=None)],
    "claim": [commands.claim(K, ["q"], ["t"], holder="h", lease=1)],
    "delay": [commands.delay(K, "q", "t", b"", seconds=1)],
    "depth": [commands.depth(K, "q")],
    "fail": [commands.fail(K, "q", "t", b"", reply_to=k, reply=b"") for k in (RESULTS, INBOX)],
    "failures": [commands.failures(K, 0, 1, newest=True, room=1)],
    "fence": [commands.fence(K.fence("x"), "t")],
    "frame": [commands.frame(K, "q", "t", INBOX, "n", b"")],
    "move": [],
    "pause": [commands.pause(K, "q", b"")],
    "peek": [commands.peek(INBOX, 0, 1, 1, largest=1)],
    "promote": [commands.promote(K, ["q"], most=1)],
    "prune": [commands.prune(K, 1, 1, 0.0)],
    "push": [commands.push(K.queue("q"), K.fence("x"), "t", 1, [], [b""])],
    "reap": [commands.reap(K, "q", "t", lease=1, most=1)],
    "renew": [commands.renew(K, "q", ["t"], lease=1)],
    "requeue": [commands.requeue(K, b"", Requeue(queue="q", message=b""))],
    "retry": [commands.retry(K, "q", "t", b"")],
    "trim": [commands.trim(INBOX, K.fence("x"), "t", 1)],
}


def test_every_script_is_somebodys():
    assert set().union(*SCRIPTS.values()) == {*NAMES}
    assert SCRIPTS.keys() == users().keys()


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_its_scripts_do_is_allowed(name):
    called = set()
    for script in SCRIPTS[name]:
        called |= set(re.findall(r"\b(?:p?call)\('([A-Z]+)'", source(script)))
    if SCRIPTS[name]:
        called |= {"eval", "evalsha", "script|load"}
    called = {"memory|usage" if one == "MEMORY" else one for one in called}
    assert {one.lower() for one in called} <= allowed(users()[name])


@pytest.mark.parametrize("name", SCRIPTS)
def test_their_keys_are_allowed(name):
    patterns = [rule[1:] for rule in users()[name] if rule.startswith("~")]
    for script in SCRIPTS[name]:
        for call in CALLS[script]:
            assert call.script == script
            for key in call.keys:
                assert any(fnmatchcase(key, pattern) for pattern in patterns), key


def test_nobody_may_more_than_it_has_to():
    for rules in users().values():
        assert "resetchannels" in rules
        assert not [rule for rule in rules if rule.startswith(("+@", "allkeys", "allcommands"))]
        assert not {"~*", "%RW~*", "%W~*"} & {*rules}
