"""The page in a real Chromium with a microphone that plays a file: what is said arrives, what is answered plays."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from browsers import CHROMIUM, FLAGS, MARKS
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve.app import create_app
from slm_serve.backends.fake import FakeBackend
from slm_serve.fakes import FakeCodec
from slm_serve.ops.settings import Settings
from slm_serve.server import Gateway, listen
from slm_serve.service import Service

SCREENSHOTS = "SLM_WEB_SCREENSHOTS"
"""Set to 1, pictures of the page are written to ``docs/images``."""

pytestmark = MARKS

ASKED, ANSWERED = 20, 10
# unit u is 1 + u periods in 20 ms
ASKED_HZ, ANSWERED_HZ = 50 * (1 + ASKED), 50 * (1 + ANSWERED)

# everything that goes to the loudspeaker passes an analyser that the test can read
TAP = """
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (!(target instanceof AudioDestinationNode)) return connect.call(this, target, ...rest);
  if (!window.tap) {
    window.tap = new AnalyserNode(this.context, { fftSize: 2048, smoothingTimeConstant: 0 });
    connect.call(window.tap, target);
  }
  return connect.call(this, window.tap);
};
window.hears = () => {
  if (!window.tap) return null;
  const bins = new Float32Array(window.tap.frequencyBinCount);
  window.tap.getFloatFrequencyData(bins);
  const best = bins.indexOf(Math.max(...bins));
  return bins[best] < -60 ? null : best * window.tap.context.sampleRate / window.tap.fftSize;
};
"""


class Server:
    """A gateway in a thread of its own, over a fake engine."""

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        from tiny_models import make_tokenizer

        tokenizer = make_tokenizer(50)
        vocabulary = UnitVocabulary.find(tokenizer)
        assert vocabulary is not None
        self.vocabulary = vocabulary
        heard, answer = "what is your name\n\nmy name is music\n\n", "my name is music"
        ids = tokenizer(f"{heard}{answer}{f'<|{ANSWERED}|>' * 140}<|eot_id|>", add_special_tokens=False)["input_ids"]
        # the last delta hangs where a test asks for it
        self.backend = FakeBackend([[[token] for token in ids]], model="music-expert")
        self._service = Service(tokenizer, vocabulary, FakeCodec(50), self.backend)
        self._app = create_app(self._service, keys, Settings())
        self._listener = listen("127.0.0.1", 0)
        self._gateway = Gateway(self._app, self._listener, "127.0.0.1", drain_s=1)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._gateway.serve([self._listener])))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gateway.should_exit = True
        self._thread.join()
        self._listener.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    file = tmp_path_factory.mktemp("microphone") / "asked.wav"
    seconds = np.arange(48_000 * 5) / 48_000
    # in syllables: browsers take a steady tone for noise
    wave = 0.5 * np.sin(2 * np.pi * ASKED_HZ * seconds) * (seconds % 0.3 < 0.2)
    soundfile.write(file, wave, 48_000, subtype="PCM_16")
    flags = [*FLAGS, "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            headless=True,
            args=[*flags, f"--use-file-for-fake-audio-capture={file}"],
        )
        yield found
        found.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true; the page's own policy forbids the usual way, which evaluates strings in it."""
    while not page.evaluate(expression):
        page.wait_for_timeout(20)


def visit(browser: Any, url: str, width: int = 1000, **options: Any) -> Any:
    """Open the page; what it says on the console and asks the network for is kept on it."""
    page = browser.new_page(viewport={"width": width, "height": 760}, **options)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.add_init_script(TAP)
    page.goto(url)
    until(page, "document.getElementById('state').textContent !== 'Connecting …'")
    return page


def heard_units(server: Server) -> list[int]:
    """Return the units of the question that reached the engine."""
    return list(server.vocabulary.units(server.backend.calls[-1].ids))


def speak(page: Any) -> None:
    """Hold the button for a second of speech."""
    page.hover("#hold")
    page.mouse.down()
    until(page, "document.getElementById('hold').textContent.startsWith('Listening')")
    until(page, "document.getElementById('level').value > 0.3")
    page.wait_for_timeout(1000)
    page.mouse.up()


def wait_for_tone(page: Any) -> None:
    until(page, f"Math.abs((hears() ?? 0) - {ANSWERED_HZ}) < 25")


def test_what_is_said_arrives_and_what_is_answered_plays(browser, server):
    page = visit(browser, server.url)
    speak(page)
    wait_for_tone(page)
    until(page, "document.getElementById('state').textContent === 'Ready.'")
    units = heard_units(server)
    assert len(units) > 30
    # between the syllables the microphone hears anything
    assert Counter(units).most_common(1)[0][0] == ASKED
    assert units.count(ASKED) > 0.4 * len(units)
    talk = [item.inner_text().split("\n") for item in page.query_selector_all("#talk li")]
    assert talk == [["You", "what is your name"], ["Model", "my name is music"]]
    # 140 units of 20 ms
    assert page.inner_text("#lasts") == "2.80 s"
    assert page.inner_text("#first-audio").endswith(" ms")
    assert page.evaluate("hears()") is None
    assert page.said == []
    assert {url for url in page.asked if not url.startswith((server.url, "blob:"))} == set()
    page.close()


def test_a_second_question_goes_on_with_the_conversation(browser, server):
    page = visit(browser, server.url)
    for turn in (1, 2):
        speak(page)
        until(page, f"document.querySelectorAll('#talk li').length === {2 * turn}")
        until(page, "document.getElementById('state').textContent === 'Ready.'")
    first, second = server.backend.calls
    # the whole first answer, its 140 units exactly, stands in the second prompt
    asked = [unit for unit in server.vocabulary.units(second.ids) if unit == ANSWERED]
    assert len(asked) == 140
    assert second.ids[: len(first.ids) - 5] == first.ids[:-5]
    page.close()


def test_speaking_stops_the_answer_on_the_page_and_in_the_engine(browser, server):
    # the answer speaks for two seconds and then hangs
    server.backend.hang_after = 130
    page = visit(browser, server.url)
    speak(page)
    wait_for_tone(page)
    assert not server.backend.calls[0].ended.is_set()
    page.mouse.down()
    until(page, "hears() === null")
    while not server.backend.calls[0].ended.is_set():
        page.wait_for_timeout(10)
    server.backend.hang_after = None
    page.wait_for_timeout(700)
    page.mouse.up()
    until(page, "document.getElementById('state').textContent === 'Ready.'")
    # the answer that was cut is not part of the conversation
    assert sum(unit == ANSWERED for unit in heard_units(server)) < 5
    assert page.query_selector_all("#talk .cut")
    page.close()


def test_the_keyboard_does_everything(browser, server):
    page = visit(browser, server.url)
    page.keyboard.down("Space")
    until(page, "document.getElementById('level').value > 0.3")
    page.wait_for_timeout(600)
    page.keyboard.up("Space")
    wait_for_tone(page)
    page.keyboard.press("Escape")
    until(page, "hears() === null")
    names = []
    for _ in range(8):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.id || document.activeElement.tagName.toLowerCase()"))
    assert {"model", "hold", "file", "fresh", "summary"} <= set(names)
    page.close()


def test_a_screen_reader_finds_names_and_news(browser, server):
    page = visit(browser, server.url)
    for role, name in [
        ("button", "Hold to talk"),
        ("button", "Stop"),
        ("combobox", "Expert"),
        ("log", "Conversation"),
    ]:
        assert page.get_by_role(role, name=name).count() == 1, name
    assert page.get_by_label("Send a recording").count() == 1
    assert page.get_by_role("status").inner_text() == "Ready."
    # a press by a screen reader is a click without a pointer: one starts, the next one sends
    page.evaluate("document.getElementById('hold').click()")
    until(page, "document.getElementById('hold').getAttribute('aria-pressed') === 'true'")
    until(page, "document.getElementById('level').value > 0.3")
    page.wait_for_timeout(500)
    page.evaluate("document.getElementById('hold').click()")
    wait_for_tone(page)
    page.close()


def test_a_recording_can_be_sent(browser, server, tmp_path):
    file = tmp_path / "question.flac"
    soundfile.write(file, FakeCodec(50).decode([7] * 60), 16_000)
    page = visit(browser, server.url)
    page.set_input_files("#file", str(file))
    wait_for_tone(page)
    assert heard_units(server) == [7] * 60
    page.close()


def test_the_expert_is_chosen_by_name(browser, server):
    page = visit(browser, server.url)
    assert page.eval_on_selector_all("#model option", "options => options.map(o => o.value)") == ["music-expert"]
    page.close()


def test_a_key_is_asked_for_and_used(browser):
    with Server(keys=("secret",)) as server:
        page = visit(browser, server.url)
        assert page.inner_text("#state") == "Enter an API key under Settings."
        page.fill("#key", "secret")
        page.press("#key", "Tab")
        until(page, "document.getElementById('state').textContent === 'Ready.'")
        speak(page)
        wait_for_tone(page)
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1000, 360], ids=["desk", "phone"])
def test_it_fits_and_can_be_read(browser, server, width, scheme):
    """No sideways scrolling, buttons of 44 pixels, and contrast by WCAG 2 of at least 4.5."""
    page = visit(browser, server.url, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    heights = page.eval_on_selector_all("button, .file", "found => found.map(e => e.getBoundingClientRect().height)")
    assert min(heights) >= 43.9
    lowest = page.evaluate(
        """() => {
            const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
            const light = colour => {
                canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const back = e => {
                const own = getComputedStyle(e).backgroundColor;
                return own !== 'rgba(0, 0, 0, 0)' || !e.parentElement ? own : back(e.parentElement);
            };
            const read = document.querySelectorAll('button:enabled, p, dt, dd, h1, label, summary');
            return Math.min(...[...read].map(e => {
                const [a, b] = [light(getComputedStyle(e).color), light(back(e))];
                return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            }));
        }"""
    )
    assert lowest >= 4.5
    page.close()


@pytest.mark.skipif(not os.environ.get(SCREENSHOTS), reason=f"set {SCREENSHOTS}=1 to write docs/images/talk*.png")
@pytest.mark.parametrize(("name", "width", "scheme"), [("talk", 900, "light"), ("talk_phone", 390, "dark")])
def test_its_picture_is_kept_in_the_documentation(browser, server, root: Path, name, width, scheme):
    page = visit(browser, server.url, width, color_scheme=scheme)
    speak(page)
    wait_for_tone(page)
    until(page, "document.getElementById('whole').textContent.endsWith(' ms')")
    page.screenshot(path=root / "docs/images" / f"{name}.png")
    page.close()
