"""Small figures as SVG inside the page; colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from markupsafe import Markup

from slm_plugin.report.content import Curve

WIDTH, HEIGHT = 340, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
MAX_POINTS = 400
"""Longer curves are thinned out for drawing; the JSON keeps every point."""

BAR_WIDTH, BAR_HEIGHT = 180, 20


def curve_figure(curve: Curve, label: str) -> Markup:
    """Draw one number over steps.

    Args:
        curve: At least one point.
        label: What a screen reader says of it.
    """
    picture = _picture(WIDTH, HEIGHT, label)
    stride = max(1, math.ceil(len(curve.steps) / MAX_POINTS))
    points = list(zip(curve.steps, curve.values, strict=True))
    kept = points[::stride] + ([points[-1]] if (len(points) - 1) % stride else [])
    low, high = _range([value for _, value in points])
    last_step = max(1, *curve.steps)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last_step
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    for value in ticks(low, high):
        y = place(0, value)[1]
        _line(picture, LEFT, y, WIDTH - RIGHT, y, "grid")
        _text(picture, LEFT - 5, y + 4, f"{value:g}", "end")
    for step in ticks(0, last_step, 4):
        _text(picture, place(step, low)[0], HEIGHT - 8, f"{step:g}", "middle")
    drawn = [place(step, value) for step, value in kept]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    ElementTree.SubElement(picture, "polyline", {"points": path, "class": "curve"})
    for x, y in drawn if len(drawn) <= 40 else drawn[-1:]:
        ElementTree.SubElement(picture, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "2", "class": "dot"})
    return _markup(picture)


def interval_figure(value: float, low: float | None, high: float | None, start: float, end: float) -> Markup:
    """Draw a score with its interval on a scale from ``start`` to ``end``; the numbers stand beside it as text."""
    picture = ElementTree.Element(
        "svg", {"viewBox": f"0 0 {BAR_WIDTH} {BAR_HEIGHT}", "class": "interval", "aria-hidden": "true"}
    )
    span = (end - start) or 1.0

    def place(number: float) -> float:
        return 4 + (BAR_WIDTH - 8) * (min(end, max(start, number)) - start) / span

    middle = BAR_HEIGHT / 2
    _line(picture, 4, middle, BAR_WIDTH - 4, middle, "grid")
    if low is not None and high is not None:
        _line(picture, place(low), middle, place(high), middle, "whisker")
        for number in (low, high):
            _line(picture, place(number), middle - 5, place(number), middle + 5, "whisker")
    ElementTree.SubElement(
        picture, "circle", {"cx": f"{place(value):.1f}", "cy": f"{middle:g}", "r": "4", "class": "dot"}
    )
    return _markup(picture)


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers within a range, about ``wanted`` of them: ``ticks(0, 10)`` is 0, 2, 4, 6, 8, 10."""
    raw = (high - low) / max(1, wanted)
    power = 10.0 ** math.floor(math.log10(raw)) if raw > 0 else 1.0
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.8)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low >= 0 and low < 0.5 * high:
        low = 0.0
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _picture(width: int, height: int, label: str) -> ElementTree.Element:
    picture = ElementTree.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label})
    ElementTree.SubElement(picture, "title").text = label
    return picture


def _line(picture: ElementTree.Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    ElementTree.SubElement(picture, "line", {name: f"{at:.1f}" for name, at in places.items()} | {"class": kind})


def _text(picture: ElementTree.Element, x: float, y: float, text: str, anchor: str) -> None:
    attributes = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor, "class": "tick"}
    ElementTree.SubElement(picture, "text", attributes).text = text


def _markup(picture: ElementTree.Element) -> Markup:
    # ElementTree has escaped every text and attribute
    return Markup(ElementTree.tostring(picture, encoding="unicode"))
