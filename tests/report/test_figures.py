from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.report.content import Curve
from slm_plugin.report.figures import HEIGHT, MAX_POINTS, WIDTH, curve_figure, interval_figure, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 10.0, [0, 2, 4, 6, 8, 10]), (0.0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]), (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_lie_in_their_range_and_are_few(low: float, width: float):
    found = ticks(low, low + width)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-6 * width - 1e-9 <= tick <= low + width * (1 + 1e-6) + 1e-9 for tick in found)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=1500))
def test_a_curve_of_any_numbers_stays_within_its_picture(values: list[float]):
    picture = ElementTree.fromstring(str(curve_figure(Curve("loss", range(len(values)), values), "<loss> & more")))
    (line,) = picture.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert 1 <= len(points) <= MAX_POINTS + 1
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert picture.attrib["aria-label"] == "<loss> & more"


def test_a_thinned_curve_ends_where_the_curve_ends():
    values = [float(step) for step in range(1000)]
    picture = ElementTree.fromstring(str(curve_figure(Curve("loss", range(1000), values), "loss")))
    (line,) = picture.iter("polyline")
    x, y = map(float, line.attrib["points"].split()[-1].split(","))
    # the right end of the plot, and its top
    assert (x, y) == (330.0, 10.0)


def test_an_interval_is_drawn_to_scale():
    picture = ElementTree.fromstring(str(interval_figure(0.5, 0.25, 0.75, 0.0, 1.0)))
    whisker = next(line for line in picture.iter("line") if line.attrib["class"] == "whisker")
    # 172 wide from 4: a quarter is at 47, three quarters at 133
    assert (whisker.attrib["x1"], whisker.attrib["x2"]) == ("47.0", "133.0")
    (dot,) = picture.iter("circle")
    assert dot.attrib["cx"] == "90.0"
