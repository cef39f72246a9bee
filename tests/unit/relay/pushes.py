"""What the broker was given to push."""

import json


def watch(stage, monkeypatch):
    noted = []
    push = stage.broker.queues.push

    def note(queue, messages):
        noted.append((queue, [json.loads(one)["args"][0]["url"] for one in messages]))
        return push(queue, messages)

    monkeypatch.setattr(stage.broker.queues, "push", note)
    return noted
