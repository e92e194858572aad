from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from report.pages import NOTHING, Page, resolve, shows
from report.world import MALICIOUS, UNITS
from slm_plugin.report import page, table
from slm_plugin.report.content import Drift, DriftCell, Report


@pytest.fixture(scope="module")
def moved(report: Report) -> Report:
    """The report with a drift, which the run without weights does not have."""
    cells = [DriftCell("0", "q/proj", 0.25), DriftCell("other", "lm_head", 0.5)]
    drift = Drift("asr", "base", 0.3, {"0": 0.25, "other": 0.5}, cells)
    return replace(report, runs=[replace(report.runs[0], drifts=[drift])])


@pytest.fixture(scope="module")
def source(moved: Report) -> str:
    return page.render(moved)


@pytest.fixture(scope="module")
def parsed(source: str) -> Page:
    return Page(source)


def test_every_number_on_the_page_is_the_one_of_the_json(parsed: Page, moved: Report):
    content = json.loads(json.dumps(moved.as_json()))
    numbers = [element for element in parsed.found if "data-at" in element.attributes]
    assert len(numbers) > 80
    for element in numbers:
        at = str(element.attributes["data-at"])
        assert shows(element.text, resolve(content, at)), f"{at}: {element.text}"


def test_every_score_interval_gate_drift_and_step_of_the_json_is_on_the_page(parsed: Page, moved: Report):
    shown = {element.attributes.get("data-at") for element in parsed.found}
    for at, value in leaves(moved.as_json()):
        wanted = r"/(value|standard_error|low|high|difference\w*|acc|bwt|fwt|relative|whole|seconds|cpu_seconds|seed)"
        if isinstance(value, float) and re.search(wanted + "$", at):
            assert at in shown, at


def leaves(content: object, at: str = "") -> list[tuple[str, object]]:
    if isinstance(content, dict):
        parts = [(page.pointer_part(str(key)), value) for key, value in content.items()]
    elif isinstance(content, list):
        parts = [(str(index), value) for index, value in enumerate(content)]
    else:
        return [(at, content)]
    return [leaf for part, value in parts for leaf in leaves(value, f"{at}/{part}")]


def test_what_comes_from_data_is_text_and_never_markup(source: str, parsed: Page):
    assert not parsed.of("script")
    assert not parsed.of("img")
    assert not [name for element in parsed.found for name in element.attributes if name.startswith("on")]
    assert MALICIOUS not in source
    assert any(MALICIOUS in element.text for element in parsed.of("dd"))
    assert any("what is <b>" in element.text for element in parsed.of("dd"))
    assert any("none & nothing" in element.text for element in parsed.of("th"))


def test_the_page_asks_for_nothing_from_anywhere(source: str, parsed: Page):
    links = [element.attributes.get(key) for element in parsed.found for key in ("src", "href")]
    assert all(str(link).startswith(("data:", "#")) for link in links if link is not None)
    assert "@import" not in source
    assert not re.search(r"url\(", source)
    (policy,) = [element.attributes["content"] for element in parsed.of("meta") if "http-equiv" in element.attributes]
    assert str(policy).startswith("default-src 'none';")


def test_tables_have_captions_and_scopes_and_can_be_scrolled_by_keyboard(parsed: Page):
    assert len(parsed.of("table")) == len(parsed.of("caption")) > 8
    assert all(element.attributes.get("scope") in ("col", "row") for element in parsed.of("th"))
    regions = [element for element in parsed.of("div") if element.attributes.get("class") == "scroll"]
    assert all(region.attributes["tabindex"] == "0" and region.attributes["aria-label"] for region in regions)


def test_pictures_and_recordings_say_what_they_are(parsed: Page):
    for element in parsed.of("svg"):
        assert element.attributes.get("aria-label") or element.attributes.get("aria-hidden") == "true"
    assert parsed.of("audio")
    assert all(element.attributes["aria-label"] and "controls" in element.attributes for element in parsed.of("audio"))


def test_names_of_places_are_unique_and_every_link_leads_to_one(parsed: Page):
    names = [element.attributes["id"] for element in parsed.found if "id" in element.attributes]
    assert len(names) == len(set(names))
    assert {str(element.attributes["href"])[1:] for element in parsed.of("a")} <= set(names)


def test_cells_that_were_not_measured_say_so(parsed: Page):
    gaps = [element for element in parsed.of("span") if element.attributes.get("aria-label") == "not measured"]
    # both variants lack two of the three skills of their base
    assert len(gaps) == 4


def test_units_are_folded_into_their_number(parsed: Page):
    summaries = [element.text for element in parsed.of("summary")]
    assert summaries.count("(3 units)") == 2
    assert summaries.count("(1 unit)") == 1
    assert any(UNITS in element.text for element in parsed.of("code"))


def test_the_seed_of_the_bootstrap_stands_on_the_page(parsed: Page):
    assert any("2000 resamples, seed 1126" in element.text for element in parsed.of("p"))


def test_an_empty_report_is_a_page(report: Report):
    bare = replace(report.runs[0], variants=[], gates=[], replay={}, trainings=[], samples=[], steps=[])
    found = Page(page.render(replace(report, runs=[bare], comparisons=[], first="")))
    assert found.of("h1")


def test_the_markdown_has_the_tables_with_the_numbers_of_the_json(moved: Report):
    text = table.render(moved)
    assert f"| base | 1.000 ± 0.050 (n 4) | {NOTHING} | {NOTHING} |" in text
    assert "| none & nothing | 0.250 (-0.500) | 0.400 (+0.200, differs) | 1.000 (+0.000) |" in text
    assert "| asr | wer | at most 0.2 | 0.100 | passed |" in text
    assert "| asr | base | 0.300 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for block in re.split(r"\n\n", text):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) <= 1
    assert len(rows) > 20


def test_markdown_keeps_data_from_being_markup(moved: Report):
    text = table.render(replace(moved, title="a|b<script>`c`"))
    assert text.startswith("# a\\|b\\<script>\\`c\\`\n")
