"""Mutated requests, read by the front, by h11 and by httptools, until they disagree.

``python benchmarks/differential.py [--count N] [--seed N]``; see tests/unit/relay/differential.py.
"""

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.unit.relay.differential import by_us, disagreements, random_mutation


def main() -> None:
    """Draw, read and compare; exit status 1 where they disagree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="default: any")
    options = parser.parse_args()
    source = random.Random(options.seed)
    found = 0
    accepted: Counter[int] = Counter()
    began = time.monotonic()
    for _ in range(options.count):
        data = random_mutation(source)
        accepted[len(by_us(data).messages)] += 1
        for difference in disagreements(data):
            found += 1
            print(f"{difference}\n    {data!r}", flush=True)
    print(
        f"{options.count} mutated requests, seed {options.seed}, "
        f"{time.monotonic() - began:.0f} s: {found} disagreements"
    )
    shown = ", ".join(f"{number}: {count}" for number, count in sorted(accepted.items()))
    print(f"requests that the front accepted in them: {shown}")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
