"""Tasks that watch: none ends on an exception, and liveness says so if one cannot be restarted."""

import asyncio
import json
import logging
import sys

import pytest

from serve.test_experts import adapter, names, shelf  # noqa: F401 - a fixture
from serve.test_experts import base as base
from slm_plugin import card
from slm_plugin.adapters.lora import LoraAdapter, load_config
from slm_plugin.errors import DataError, EngineError, WeightsError
from slm_serve import background as background_module
from slm_serve import supervisor as supervisor_module
from slm_serve.background import MOST_FAILURES, Background
from slm_serve.engine import Engine
from slm_serve.errors import RefusedError
from slm_serve.experts import engine_arguments
from slm_serve.ops.metrics import Metrics
from slm_serve.supervisor import Supervisor

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(background_module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(background_module, "LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(supervisor_module, "POLL_S", 0.001)
    monkeypatch.setattr(supervisor_module, "LONGEST_PAUSE_S", 0.001)


async def test_a_task_that_raises_is_started_again_and_counted():
    metrics, n_starts = Metrics(), 0
    background = Background(metrics)
    running = asyncio.Event()

    async def work():
        nonlocal n_starts
        n_starts += 1
        if n_starts < 3:
            raise FileNotFoundError("a cleaned folder")
        running.set()
        await asyncio.sleep(60)

    background.start("work", work)
    await running.wait()
    assert n_starts == 3
    assert background.alive
    assert b'slm_task_restarts_total{task="work"} 2.0' in metrics.page()
    await background.stop()


async def test_liveness_fails_while_a_task_cannot_be_restarted(live):
    async with live("a") as g:

        async def work():
            raise RuntimeError("secret words")

        assert (await g.http.get("/health/live")).status_code == 200
        g.service.background.start("work", work)
        while g.service.background.alive:
            await asyncio.sleep(0.001)
        assert (await g.http.get("/health/live")).status_code == 503
        # it is tried on all the same
        assert b'slm_task_restarts_total{task="work"}' in g.service.metrics.page()


async def test_failures_long_ago_do_not_add_up():
    now = [0.0]
    background = Background(Metrics(), clock=lambda: now[0])
    n_starts = 0
    done = asyncio.Event()

    async def work():
        nonlocal n_starts
        n_starts += 1
        now[0] += background_module.SETTLED_S
        if n_starts > 3 * MOST_FAILURES:
            done.set()
            await asyncio.sleep(60)
        raise OSError

    background.start("work", work)
    await done.wait()
    assert background.alive
    await background.stop()


class FlakyEngine:
    """An engine whose restarts fail in several ways before one works."""

    log_path = "log"

    def __init__(self, failures):
        self.failures = list(failures)
        self.code = 1
        self.n_starts = 0

    def exit_code(self):
        return self.code

    def stop(self):
        pass

    def start(self):
        self.n_starts += 1
        if self.failures:
            raise self.failures.pop()
        self.code = None

    async def ready(self):
        pass


class Healthy:
    async def healthy(self):
        return True


async def test_the_engine_is_started_again_whatever_failed_before():
    failures = [
        FileNotFoundError("a cleaned folder"),
        MemoryError(),
        BlockingIOError(),
        EngineError("no"),
        ValueError(),
    ]
    engine = FlakyEngine(failures)
    running = asyncio.create_task(Supervisor(engine, Healthy(), Metrics()).run())
    while engine.code is not None:
        await asyncio.sleep(0.001)
    assert engine.n_starts == 6
    assert not running.done()
    running.cancel()


async def test_an_engine_starts_although_the_folder_of_its_log_was_cleaned(tmp_path, monkeypatch):
    monkeypatch.setattr("slm_serve.engine.on_cpu", lambda: False)
    engine = Engine("nowhere", tmp_path / "cleaned" / "log")
    monkeypatch.setattr(engine, "_command", lambda: [sys.executable, "-c", "pass"])
    engine.start()
    (tmp_path / "cleaned" / "log").unlink()
    with pytest.raises(EngineError, match=r"log .* is gone"):
        await engine.ready()
    engine.stop()


async def test_a_refused_expert_does_not_keep_the_restarted_engine_from_answering(shelf):
    adapter(shelf.folder / "cooking")
    adapter(shelf.folder / "sewing")
    await shelf.scan(settled=True)
    load = shelf._door.load

    async def refuse_one(version, folder):
        if version.startswith("cooking"):
            raise RefusedError("no such folder")
        await load(version, folder)

    shelf.engine.door.loaded.clear()
    shelf._door.load = refuse_one
    await shelf.reload()
    assert await names(shelf) == ["base", "sewing"]
    # the copy was cleaned, say; the folder is still there, and the next look takes it in again
    shelf._door.load = load
    await shelf.scan()
    assert sorted(await names(shelf)) == ["base", "cooking", "sewing"]


def spoiled(folder, config=None, card_bytes=None):
    adapter(folder)
    path = folder / "adapter_config.json"
    if config is not None:
        path.write_text(json.dumps(json.loads(path.read_text()) | config) if isinstance(config, dict) else config)
    if card_bytes is not None:
        (folder / "slm.json").write_bytes(card_bytes)
    return folder


CONFIGS = {
    "r is text": {"r": "8"},
    "r is negative": {"r": -1},
    "r is a list": {"r": [8]},
    "r is huge": {"r": 10**12},
    "alpha is text": {"lora_alpha": "16"},
    "a bad pattern": {"alpha_pattern": {"(": 8}},
    "patterns are a list": {"rank_pattern": ["q_proj"]},
    "modules are a number": {"target_modules": 3},
    "indices are text": {"trainable_token_indices": "all"},
    "a list": "[1, 2]",
    "a number": "7",
    "no JSON": "{",
    "deep": "[" * 100_000,
}
CARDS = {
    "Latin-1": '{"stage": "é"}'.encode("latin-1"),
    "a list": b"[1]",
    "text": b'"x"',
    "units are a list": b'{"units": [1]}',
    "count is text": b'{"units": {"count": "50", "first_id": 0}}',
    "base is text": b'{"base": "x"}',
    "no JSON": b"{",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_peft_does_not_write_is_an_error_of_one_line(tmp_path, name):
    folder = spoiled(tmp_path / "a", config=CONFIGS[name])
    with pytest.raises(WeightsError) as told:
        load_config(folder)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 1000
    # what the engine is started with does not fail either
    assert engine_arguments(tmp_path, None)[-1] == "16"


@pytest.mark.parametrize("name", CARDS)
def test_a_card_that_is_none_is_an_error_of_one_line(tmp_path, name):
    with pytest.raises(DataError, match="is damaged") as told:
        card.read(spoiled(tmp_path / "a", card_bytes=CARDS[name]))
    assert "\n" not in str(told.value)


async def test_spoiled_adapters_are_refused_and_the_good_one_is_served(shelf, caplog):
    adapter(shelf.folder / "good")
    for number, config in enumerate(CONFIGS.values()):
        spoiled(shelf.folder / f"config{number}", config=config)
    for number, content in enumerate(CARDS.values()):
        spoiled(shelf.folder / f"card{number}", card_bytes=content)
    (spoiled(shelf.folder / "loop") / "link").symlink_to("link")
    with caplog.at_level(logging.ERROR, "slm_serve.experts"):
        await shelf.begin()
    assert await names(shelf) == ["base", "good"]
    refused = {record.fields["expert"] for record in caplog.records if hasattr(record, "fields")}
    assert len(refused) == len(CONFIGS) + len(CARDS) + 1


async def test_a_folder_of_experts_that_cannot_be_listed_is_looked_at_again(shelf, tmp_path):
    shelf.folder.rename(tmp_path / "moved")
    await shelf.begin()
    (tmp_path / "moved").rename(shelf.folder)
    adapter(shelf.folder / "good")
    await shelf.begin()
    assert await names(shelf) == ["base", "good"]


def test_a_pattern_of_exponential_time_is_an_error(tmp_path):
    config = {"alpha_pattern": {"(q|qq)+Z": 8}}
    folder = spoiled(tmp_path / "a", config=config)
    adapter(folder, module="model.layers.0.self_attn." + "q" * 60)
    spoiled_config = json.loads((folder / "adapter_config.json").read_text()) | config
    (folder / "adapter_config.json").write_text(json.dumps(spoiled_config))
    found = LoraAdapter(folder)
    with pytest.raises(WeightsError, match="takes too long"):
        found.scale(found.modules()[0])
