"""What the relay costs, beside a bare twisted.web Site in the same minutes on the same cores.

``python benchmarks/relay.py [--rounds N] [--seconds S] [--quick] [--json FILE]``; see README.md.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rig import HELD, MANY, ONE, WARM_UP, Bench, Holding, Run, wrk

#: (a), (b) and (c).
NAMES = {"bare": "bare Site", "fast": "relay, fast worker", "wsgi": "relay, WSGI worker"}


@dataclass(frozen=True, slots=True)
class Target:
    """Something to be reached."""

    name: str
    figure: float
    limit: float
    #: Whether more is better.
    floor: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.figure >= self.limit if self.floor else self.figure <= self.limit


class Results:
    """All runs, and what they come to."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = {(run.subject, run.clients, run.round): run for run in runs}
        self.rounds = sorted({run.round for run in runs})
        self.errors = sum(run.errors for run in runs)

    def of(self, subject: str, clients: int) -> list[Run]:
        """Its runs, by round."""
        return [self._runs[subject, clients, round] for round in self.rounds]

    def median(self, subject: str, clients: int, figure: Callable[[Run], float]) -> float:
        """The median of its rounds."""
        return median(map(figure, self.of(subject, clients)))

    def ratios(self, subject: str, clients: int, figure: Callable[[Run], float]) -> list[float]:
        """Each round's figure by the bare Site's of the same round."""
        pairs = zip(self.of(subject, clients), self.of("bare", clients), strict=True)
        return [figure(run) / figure(bare) for run, bare in pairs]


def measure(bench: Bench, rounds: int, seconds: float) -> Results:
    """Interleaved: what disturbs the machine for a while disturbs all."""
    subjects = [
        bench.bare(),
        bench.fast(bench.relay("fast")),
        bench.wsgi(bench.relay("wsgi")),
    ]
    for subject in subjects:
        wrk(subject.port, clients=MANY, seconds=WARM_UP)
    runs: list[Run] = []
    for round in range(1, rounds + 1):
        # Each round begins with another one, so that none is always the first after another.
        turn = round % len(subjects)
        for clients in (MANY, ONE):
            for subject in (*subjects[turn:], *subjects[:turn]):
                run = bench.run(subject, clients=clients, seconds=seconds, round=round)
                runs.append(run)
                print(described(run), flush=True)
    return Results(runs)


def described(run: Run) -> str:
    """One run as a line."""
    cpu = " ".join(f"{name} {used:.0f}" for name, used in run.cpu.items())
    commands = sum(run.commands.values())
    return (
        f"{run.round:2}  {NAMES[run.subject]:18}  {run.clients:2} clients  {run.rate:7.0f} req/s  "
        f"p50 {run.p50 / 1000:6.2f} ms  p99 {run.p99 / 1000:6.2f} ms  errors {run.errors}  "
        f"commands/req {commands:.3f}  others {run.disturbance:.2f} cores  CPU us/req: {cpu}"
    )


def server_cpu(run: Run) -> float:
    """Microseconds of CPU per request of the server: what a neighbour's load disturbs least."""
    return run.cpu[next(iter(run.cpu))]


def tables(results: Results) -> Iterable[str]:
    """Medians, in Markdown."""
    for clients in (MANY, ONE):
        yield f"\n{clients} keep-alive connection{'s' if clients > 1 else ''}, medians:\n"
        yield "| | req/s | by bare | rounds | p50 ms | p99 ms | by bare | CPU us/req | by bare |"
        yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
        for name, title in NAMES.items():
            rates = results.ratios(name, clients, lambda run: run.rate)
            p50, p99 = (
                median(results.ratios(name, clients, figure))
                for figure in (lambda run: run.p50, lambda run: run.p99)
            )
            server = results.median(name, clients, server_cpu)
            dearer = median(results.ratios(name, clients, server_cpu))
            yield (
                f"| {title} | {results.median(name, clients, lambda run: run.rate):.0f} "
                f"| {median(rates):.2f} | {' '.join(f'{rate:.2f}' for rate in rates)} "
                f"| {results.median(name, clients, lambda run: run.p50) / 1000:.2f} "
                f"| {results.median(name, clients, lambda run: run.p99) / 1000:.2f} "
                f"| {p50:.2f}, {p99:.2f} | {server:.0f} | {dearer:.2f} |"
            )
    yield f"\nRedis commands per request of the relay's own, {MANY} connections:\n"
    for name in ("fast", "wsgi"):
        runs = results.of(name, MANY)
        by_connection = {
            connection: median(run.commands[connection] for run in runs)
            for connection in sorted(runs[0].commands)
        }
        shown = ", ".join(f"{each} {count:.3f}" for each, count in by_connection.items())
        pushed = 1 / max(1e-9, by_connection["commands"])
        read = 1 / max(1e-9, median(run.turns for run in runs))
        yield (
            f"- {NAMES[name]}: {sum(by_connection.values()):.3f} ({shown}); about {pushed:.0f} "
            f"requests in a push, {read:.0f} replies in a turn of the inbox"
        )


def held_lines(held: Holding) -> Iterable[str]:
    """What is known of held requests."""
    yield f"\n{held.held} held requests: {held.each:.1f} KiB each ({held.each_private:.1f} private)"
    for name in ("before", "connected", "holding"):
        memory = getattr(held, name)
        yield f"- {name}: RSS {memory.rss} KiB, private {memory.uss} KiB"
    answers = ", ".join(f"{count} {name}" for name, count in held.answers.items())
    yield f"- answers that the clients got: {answers}"


def targets(results: Results, held: Holding) -> list[Target]:
    """What the project wants to reach."""
    rate = median(results.ratios("fast", MANY, lambda run: run.rate))
    p99 = median(results.ratios("fast", MANY, lambda run: run.p99))
    p50 = median(results.ratios("fast", ONE, lambda run: run.p50))
    commands = results.median("fast", MANY, lambda run: sum(run.commands.values()))
    wrong = held.held - held.answers["right"]
    return [
        Target("64 connections: req/s of the relay by the bare Site's", rate, 0.70, floor=True),
        Target("64 connections: p99 by the bare Site's", p99, 2.0),
        Target("64 connections: Redis commands per request of the relay's own", commands, 0.2),
        Target("one connection: p50 by the bare Site's", p50, 2.2),
        Target("KiB per held connection and request", held.each, 10.0),
        Target("errors in all runs", results.errors, 0),
        Target("held clients without exactly their own answer", wrong, 0),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=5, help="seconds of each run (default: %(default)s)"
    )
    parser.add_argument("--held", type=int, default=HELD, help="held (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s, 1000 held")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.held = 1, 1, min(options.held, 1000)
    # So that children are stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; load before: {os.getloadavg()[0]:.2f}", flush=True)
    # A short path: that of a Unix socket has 107 bytes at most.
    directory = tempfile.TemporaryDirectory(prefix="qr-bench-", ignore_cleanup_errors=True)
    with directory as name, ExitStack() as stack:
        bench = Bench(stack, Path(name))
        try:
            results = measure(bench, options.rounds, options.seconds)
            held = bench.hold(options.held)
        except Exception:
            print(bench.children.last_words(), file=sys.stderr)
            raise
    reached = targets(results, held)
    print("\n".join([*tables(results), *held_lines(held)]), "\n")
    for target in reached:
        print(
            f"{'reached    ' if target.reached else 'NOT REACHED'}  {target.name}: "
            f"{target.figure:.3g} (wanted: {'>=' if target.floor else '<='} {target.limit:g})"
        )
    if options.json is not None:
        document = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine,
            "seconds": options.seconds,
            "runs": [
                asdict(run)
                for subject in NAMES
                for clients in (MANY, ONE)
                for run in results.of(subject, clients)
            ],
            "held": asdict(held),
            "targets": [{**asdict(target), "reached": target.reached} for target in reached],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
