"""The page in a real Chromium, without a window and without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from browsers import CHROMIUM, FLAGS, MARKS
from report.pages import resolve, shows
from slm_plugin.report.content import Report
from slm_plugin.report.output import write

SCREENSHOT = "SLM_REPORT_SCREENSHOT"
"""The folder of a finished run of examples/tiny: its report's picture is written to ``docs/images/report.png``."""

pytestmark = MARKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def files(report: Report, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(report, tmp_path_factory.mktemp("page"))


@pytest.fixture(params=[1200, 390], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, files: list[Path]) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(files[0].as_uri())
    opened.wait_for_load_state("load")
    yield opened
    opened.close()


def test_it_opens_without_a_complaint_and_asks_for_no_other_file(page: Any, files: list[Path]):
    assert page.said == []
    assert {url for url in page.asked if not url.startswith("data:")} == {files[0].as_uri()}
    assert page.evaluate("document.title").startswith("run: ")


def test_it_is_as_wide_as_the_window(page: Any):
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_nothing_is_cut_off_on_paper(page: Any):
    page.emulate_media(media="print")
    # the width of A4 between its margins
    page.set_viewport_size({"width": 718, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")


def test_its_numbers_are_those_of_the_json(page: Any, files: list[Path]):
    content = json.loads(files[1].read_text(encoding="utf-8"))
    pairs = page.evaluate("[...document.querySelectorAll('[data-at]')].map(e => [e.dataset.at, e.textContent])")
    assert len(pairs) > 60
    wrong = [at for at, text in pairs if not shows(text, resolve(content, at))]
    assert wrong == []


def test_its_recordings_can_be_played(page: Any, report: Report):
    for details in page.query_selector_all("details:not([open]):not(.units)"):
        details.evaluate("element => element.open = true")
    durations = page.evaluate(
        """async () => Promise.all([...document.querySelectorAll('audio')].map(audio => new Promise(done => {
            const tell = () => done(audio.error ? null : audio.duration);
            if (audio.readyState > 0) tell();
            audio.onloadedmetadata = tell; audio.onerror = tell; audio.load();
        })))"""
    )
    lengths = [example.seconds for run in report.runs for found in run.samples for example in found.examples]
    assert durations == pytest.approx([length for length in lengths if length is not None], abs=0.01)
    assert durations


def test_its_recordings_hold_sound(page: Any, report: Report):
    loudest = page.evaluate(
        """async () => Promise.all([...document.querySelectorAll('audio')].map(async audio => {
            const bytes = Uint8Array.from(atob(audio.src.split(',')[1]), letter => letter.charCodeAt(0));
            const sound = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes.buffer);
            return Math.max(...sound.getChannelData(0).map(Math.abs));
        }))"""
    )
    assert len(loudest) == len(report.audio) > 0
    assert min(loudest) > 0.01


def test_a_score_can_be_read_against_its_colour(page: Any):
    """Contrast by WCAG 2, at least 4.5, of every score on its background in light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        lowest = page.evaluate(
            """() => {
                const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
                const light = colour => {
                    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
                };
                return Math.min(...[...document.querySelectorAll('td.score, td.moved')].map(cell => {
                    const style = getComputedStyle(cell);
                    const [a, b] = [light(style.color), light(style.backgroundColor)];
                    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                }));
            }"""
        )
        assert lowest >= 4.5, scheme


@pytest.mark.skipif(not os.environ.get(SCREENSHOT), reason=f"set {SCREENSHOT}=RUN to write docs/images/report.png")
def test_its_picture_is_kept_in_the_documentation(browser: Any, tmp_path: Path, root: Path):
    from slm_plugin.plugins import Registry
    from slm_plugin.report.collect import ReportOptions, collect

    options = ReportOptions(learned={"sqa_heard": "sqa", "sqa_unheard": "sqa"})
    found = collect([Path(os.environ[SCREENSHOT])], options, Registry.load())
    # the picture is the same wherever the run lies
    found = replace(found, runs=[replace(found.runs[0], folder="runs/demo", pipeline="examples/tiny/pipeline.yaml")])
    opened = browser.new_page(viewport={"width": 1000, "height": 1500}, color_scheme="light")
    opened.goto(write(found, tmp_path)[0].as_uri())
    (root / "docs/images").mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=root / "docs/images/report.png")
    opened.close()
