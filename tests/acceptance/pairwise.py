"""All pairs instead of the full product: each two values of two dimensions meet in some case."""

import itertools
from collections.abc import Iterator, Mapping, Sequence


def pairwise(dimensions: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Cases that together have every pair of values, by the greedy method; always the same ones."""
    names = sorted(dimensions, key=lambda name: -len(dimensions[name]))
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in dimensions[a]
        for y in dimensions[b]
    }
    first, second = names[:2]
    # No two pairs of the largest dimensions fit into one case, so each begins one.
    for x, y in itertools.product(dimensions[first], dimensions[second]):
        case = {first: x, second: y}
        for number, name in enumerate(names[2:], 2):
            options = dimensions[name]
            # Among equals the one whose turn it is.
            turn = len(missing) % len(options)
            case[name] = max(
                (*options[turn:], *options[:turn]),
                key=lambda value, name=name, others=names[:number]: sum(
                    ((other, case[other]), (name, value)) in missing for other in others
                ),
            )
        missing -= set(itertools.combinations(case.items(), 2))
        yield case
    while missing:
        (a, x), (b, y) = min(missing)
        case = {name: dimensions[name][0] for name in names} | {a: x, b: y}
        missing -= set(itertools.combinations(case.items(), 2))
        yield case
