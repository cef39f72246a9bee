"""The example of embedding, run as its first line says."""

import os
import signal
import subprocess

from tests.helpers.daemon import ROOT, TWISTD, Client
from tests.helpers.ports import free_port, listens
from tests.helpers.waiting import PATIENCE, eventually


def test_the_example_mounts_the_relay_beside_other_resources(worker, fresh_valkey, tmp_path):
    port = free_port()
    text = (ROOT / "etc" / "examples" / "embed.py").read_text()
    assert text.count('"tcp:8000"') == text.count('redis="localhost"') == 1
    text = text.replace('"tcp:8000"', f'"tcp:{port}:interface=127.0.0.1"')
    (tmp_path / "embed.py").write_text(text.replace('"localhost"', f'"{fresh_valkey.url}"'))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [TWISTD[0], "--pidfile=", "-ny", "embed.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: listens(port) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        client = Client(port)
        client.send("GET", "/hello")
        assert client.response().body == b"hello from this process\n"
        client.send("POST", "/app/a?b", body=b"c")
        taken = worker.serve(status=201)
        assert (taken["url"], taken["body"]) == ("/app/a?b", "c")
        response = client.response("POST")
        assert (response.status, response.body) == (201, b"/app/a?b")
        # A request that is held when the application is stopped gets its answer.
        client.send("GET", "/app/held")
        taken = worker.take()
        process.send_signal(signal.SIGTERM)
        eventually(lambda: not listens(port))
        worker.reply(taken, body=b"last")
        assert client.response().body == b"last"
        client.close()
        # The application is not ours: it ends as any ``twistd`` does, by the signal.
        assert process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text, text
    assert worker.redis.zrange("queuerelay:nodes", 0, -1) == []
