"""The plots: what is not known is no line, and what is stands where it belongs."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

from queuerelay.status.views import page_text
from queuerelay.status.views.page_plot import HEIGHT, WIDTH, Line, plot, plots
from tests.unit.status.page_scene import NOW, history


def drawn(values: list[float | None], *, times: list[float] | None = None) -> ET.Element:
    """The plot of `values`, the last one now."""
    count = len(values)
    made = replace(
        history(0),
        times=tuple(times or [NOW - 10 * (count - 1 - n) for n in range(count)]),
    )
    return ET.fromstring(plot("x", made, [Line(name="Things", values=values)], page_text.count))


def path(svg: ET.Element, kind: str) -> str:
    found = next(one for one in svg.iter("path") if kind in one.attrib["class"].split())
    return found.attrib["d"]


def points(d: str) -> list[list[tuple[float, float]]]:
    """The pieces of a path, each its points."""
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", piece)]
        for piece in d.split("M")[1:]
    ]


def test_a_line_goes_from_an_hour_ago_to_now_and_from_nought_to_the_highest() -> None:
    line = path(drawn([float(n) for n in range(361)]), "line0")
    [piece] = points(line)
    assert piece[0] == (0, HEIGHT - 2)
    assert piece[-1] == (WIDTH, 2)
    assert len(piece) == 361


def test_what_is_not_known_is_grey_and_no_line() -> None:
    svg = drawn([1.0] * 100 + [None] * 61 + [1.0] * 200)
    first, second = points(path(svg, "line0"))
    assert (first[0][0], first[-1][0]) == (0, 99)
    assert (second[0][0], second[-1][0]) == (161, WIDTH)
    grey = points(path(svg, "unknown"))
    assert len(grey) == 1
    assert 99 < grey[0][0][0] < 100


def test_a_time_without_points_is_a_gap() -> None:
    svg = drawn([1.0, 1.0, 1.0], times=[NOW - 1000, NOW - 990, NOW])
    assert len(points(path(svg, "line0"))) == 2
    # Before the first, and between.
    assert len(points(path(svg, "unknown"))) == 2


def test_a_single_point_shows() -> None:
    assert path(drawn([3.0]), "line0").endswith("h0")


def test_nothing_at_all_is_all_grey() -> None:
    svg = drawn([])
    assert path(svg, "line0") == ""
    assert path(svg, "unknown") == f"M0 0H{WIDTH}V{HEIGHT}H0z"
    assert "nothing known yet" in "".join(svg.itertext())


def test_nought_is_a_line_at_the_bottom_and_no_gap() -> None:
    svg = drawn([0.0] * 361)
    assert {y for _, y in points(path(svg, "line0"))[0]} == {HEIGHT - 2}
    assert path(svg, "unknown") == ""
    assert "max" not in "".join(svg.itertext())


def test_title_and_description_name_the_picture() -> None:
    svg = drawn([1.0, 7.0])
    [picture] = svg.iter("svg")
    ids = {one.attrib["id"]: one for one in picture.iter() if "id" in one.attrib}
    named = [ids[id].text for id in picture.attrib["aria-labelledby"].split()]
    assert named == ["The last hour", "Things: lowest 1, highest 7"]
    assert picture.attrib["role"] == "img"
    texts = [one.text for one in svg.iter("span")]
    assert texts == ["max 7", "1 h ago", "now"]


def test_all_plots_are_well_formed_with_ids_of_their_own() -> None:
    made = plots(history())
    assert set(made) == {"held", "depth", "oldest", "passed", "failed"}
    ids = [
        one.attrib["id"]
        for each in made.values()
        for one in ET.fromstring(each).iter()
        if "id" in one.attrib
    ]
    assert len(ids) == len(set(ids)) == 10
    two = ET.fromstring(made["passed"])
    assert {one.attrib["class"] for one in two.iter("path")} == {
        *("unknown", "line line0", "line line1"),
    }


def test_what_is_older_than_an_hour_is_not_drawn() -> None:
    svg = drawn([9.0, 1.0, 1.0], times=[NOW - 90_000, NOW - 10, NOW])
    assert len(points(path(svg, "line0"))) == 1
    assert "-" not in path(svg, "line0") + path(svg, "unknown")
    assert "highest 1" in "".join(svg.itertext())
