"""``report.html``: one file that needs no other, no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slm_plugin.report.content import OTHER, Bar, Comparison, Curve, Drift, Report
from slm_plugin.report.figures import curve_figure, interval_figure
from slm_plugin.report.forgetting import DEFINITIONS
from slm_plugin.report.numbers import written
from slm_plugin.report.samples import folded

TEMPLATE = "report.html.jinja"


def render(report: Report) -> str:
    """Return the page.

    Every number on it is read from the content of ``report.json`` by its place there, which stands in the
    attribute ``data-at``. All text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("slm_plugin.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = report.as_json()

    def number(at: str, style: str = "score") -> Markup:
        return Markup('<span data-at="{}">{}</span>').format(at, written(at_pointer(content, at), style))

    environment.globals |= {
        "number": number,
        "curve_figure": curve_figure,
        "whisker": _whisker,
        "grid": _grid,
        "drift_shade": _drift_shade,
        "definitions": DEFINITIONS,
    }
    environment.filters |= {
        "pointer": pointer_part,
        "folded": folded,
        "last_index": _last_index,
        "layer_names": _layer_names,
        "sides": _sides,
    }
    return environment.get_template(TEMPLATE).render(report=report)


def at_pointer(content: Any, at: str) -> Any:
    """Return what stands at a place of a JSON document, by RFC 6901: ``/runs/0/name``."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in at.split("/")[1:]]
    return reduce(lambda found, part: found[int(part) if isinstance(found, Sequence) else part], parts, content)


def pointer_part(name: str) -> str:
    """Write a key as a part of such a place."""
    return name.replace("~", "~0").replace("/", "~1")


def _whisker(comparison: Comparison, bar: Bar) -> Markup:
    """Draw a bar on the scale of its comparison: 0 to 1, or as far as values go."""
    ends = [bar.high if bar.high is not None else bar.value for bar in comparison.bars]
    return interval_figure(bar.value, bar.low, bar.high, 0.0, max(1.0, *ends))


def _grid(drift: Drift) -> Mapping[str, Any]:
    """Return a drift as a table: its kinds, and for each layer the place of each kind in ``cells``."""
    kinds = list(dict.fromkeys(cell.kind for cell in drift.cells))
    places = {(cell.layer, cell.kind): index for index, cell in enumerate(drift.cells)}
    rows = {layer: [places.get((layer, kind)) for kind in kinds] for layer in drift.layers}
    return {"kinds": kinds, "rows": rows}


def _drift_shade(drifts: Sequence[Drift], relative: float) -> float:
    """Return 0 to 1: the drift as a share of the largest of its run."""
    largest = max((cell.relative for drift in drifts for cell in drift.cells), default=0.0)
    return round(relative / largest, 3) if largest else 0.0


def _last_index(curve: Curve) -> int:
    return len(curve.values) - 1


def _layer_names(drifts: Sequence[Drift]) -> list[str]:
    """Return the layers that occur, in the order of the model with most of them; what is in none stands last."""
    names = dict.fromkeys(
        layer for drift in sorted(drifts, key=lambda one: -len(one.layers)) for layer in drift.layers
    )
    return sorted(names, key=lambda layer: layer == OTHER)


def _sides(shade: float) -> str:
    """Return the style of a score: how far it is from the middle of the scale, and to which side."""
    side = "good" if shade >= 0.5 else "bad"
    return f"--side:var(--{side});--share:{abs(shade - 0.5) * 200:.1f}%"
