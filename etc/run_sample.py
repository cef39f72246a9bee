"""What ``make run`` runs: one daemon with a relay, an embedded Valkey and two pools.

The sample site runs in resident WSGI workers, and a shell script answers under ``/cgi/``. Ctrl-C
ends all of it in order, so that nothing and nobody is left behind; a second one skips the waiting.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from twisted.scripts import twistd

EXAMPLES = Path(__file__).resolve().parent / "examples"
#: Programs of the environment that this runs in.
BIN = Path(sys.executable).parent

CONFIG = """\
redis = "embedded"

[relay]
listen = [{listen}]

[status]
listen = {status}

[[relay.route]]
path = "/cgi/"
queue = "cgi"

[[pool]]
name = "site"
queues = ["requests"]
resident = true
size = {workers}
command = [{worker}, "--chdir", {examples}, "sample_site:app"]

[[pool]]
name = "cgi"
queues = ["cgi"]
size = 4
command = [{script}]
script_name = "/cgi"
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:8000", help="the relay's endpoint")
    parser.add_argument(
        "--status", default="tcp:8080:interface=127.0.0.1", help="the status page's, or off"
    )
    parser.add_argument("--workers", type=int, default=1, help="how many (default: 1)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="queuerelay-") as directory:
        texts = {
            "listen": options.listen,
            "status": options.status,
            "worker": str(BIN / "queuerelay-worker"),
            "examples": str(EXAMPLES),
            "script": str(EXAMPLES / "requests" / "page.sh"),
        }
        config = Path(directory, "sample.toml")
        # JSON's texts are TOML's too.
        quoted = {name: json.dumps(text) for name, text in texts.items()}
        config.write_text(CONFIG.format(workers=options.workers, **quoted))
        sys.argv = ["twistd", "-n", "--pidfile=", "queuerelay", "--config", str(config)]
        twistd.run()


if __name__ == "__main__":
    main()
