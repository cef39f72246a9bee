"""The JSON documents, against the schema that is published for those who read them."""

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from queuerelay.status.collect import dead_letters, history, snapshot
from queuerelay.wire import node
from tests.unit.status.published import failure, pool

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "status.schema.json").read_text())
#: The records behind parts of the schema that are named otherwise there.
RECORDS = {
    "Snapshot": snapshot.StatusSnapshot,
    "Node": snapshot.NodeStatus,
    "LoopState": snapshot.LoopStatus,
    "Queue": snapshot.QueueStatus,
    "Gate": snapshot.Gate,
    "Held": snapshot.RelayStatus,
    "Pool": snapshot.PoolStatus,
    "Slot": node.SlotState,
    "Exit": node.ExitRecord,
    "Failures": dead_letters.DeadLetters,
    "DeadLetter": dead_letters.DeadLetter,
    "Attempt": dead_letters.DeadLetterAttempt,
    "History": history.History,
    "Series": history.Series,
    "Percentiles": history.Percentiles,
}
#: Which part of the schema a document follows.
DOCUMENTS = {"/status.json": "Snapshot", "/history.json": "History", "/failures.json": "Failures"}


def check(stage, path: str) -> None:
    schema = {**SCHEMA, "$ref": f"#/$defs/{DOCUMENTS[path]}"}
    jsonschema.Draft202012Validator(schema).validate(stage.json(path))


def busy(stage) -> None:
    """Something of everything."""
    stage.broker.gate.pause("requests", by="me")
    stage.turn(1.5)
    stage.hold()
    stage.broker.store.append("resque:failed", [failure(1), b"{}"])
    slot = {"number": 1, "state": "running", "pid": 9, "message": "m", "age": 4.5, "attempt": 1}
    gone = {"at": 5.0, "message": "m", "signal": "SIGKILL", "outcome": "crash", "stderr": "x"}
    stage.beat(
        "p1",
        role="pool",
        loops=[["beat", 99.0, 20.0]],
        pools=[pool(slots=[slot], exits=[gone], counters={"success": 5}, rates={"success": 0.1})],
    )
    stage.turn(12.0)


def away(stage) -> None:
    stage.broker.disconnect()
    stage.turn(15.0)


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize("state", [lambda stage: None, busy], ids=["idle", "busy"])
def test_documents_are_what_the_schema_says(stage, path, state):
    state(stage)
    check(stage, path)


@pytest.mark.parametrize("path", ["/status.json", "/history.json"])
def test_so_they_are_while_redis_is_away(stage, path):
    busy(stage)
    away(stage)
    check(stage, path)


def test_the_schema_is_strict_and_knows_every_field():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, part in SCHEMA["$defs"].items():
        assert part["additionalProperties"] is False, name
        assert part["required"] == list(part["properties"]), name
        record = RECORDS.get(name) or getattr(snapshot, name)
        fields = {one.name for one in dataclasses.fields(record)} - {"history", "histograms"}
        named = {"cls" if key == "class" else key for key in part["properties"]}
        assert named == fields, name
