"""Every message that the page of troubleshooting quotes is really raised, word for word."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from slm_plugin import card
from slm_plugin.adapters.check import require_same_fingerprint
from slm_plugin.config import parse_block
from slm_plugin.errors import ConfigError, Problem, SlmError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.host import arguments, compatibility, surface, token_cache
from slm_plugin.pipeline import plan, runner
from slm_plugin.pipeline.progress import Progress
from slm_plugin.plugins import Registry
from slm_plugin.speech import audio
from slm_plugin.speech.codecs import load_codec
from slm_plugin.vocabulary import UnitVocabulary
from slm_serve import engine, running, server
from slm_serve.backends.http import HttpBackend
from slm_serve.fakes import FakeCodec
from slm_serve.ops import auth
from slm_serve.parsing import parse_json
from slm_serve.protocol import UNSUPPORTED, ChatRequest
from slm_serve.service import bind_units
from slm_serve.workers.encoder import EncoderWorker
from tiny_models import make_tokenizer

REGISTRY = Registry.load(entry_points=False)
PAGE = Path(__file__).resolve().parents[2] / "docs/troubleshooting.md"
QUOTED = re.findall(r"^```text\n(.*?)\n```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def unknown_names() -> None:
    block = {"stage": "ars", "units": {"count": 10_000, "sede": 1}, "mitigations": [{"replay": {"source": {}}}]}
    parse_block(block, REGISTRY, "asr.yaml: slm")


def unknown_mitigation() -> None:
    parse_block({"mitigations": [{"repaly": {}}]}, REGISTRY, "asr.yaml: slm")


def unknown_source() -> None:
    from slm_plugin.host import runtime

    config = parse_block({"stage": "asr", "mitigations": [{"replay": {"sources": {"magpie": 0.05}}}]}, REGISTRY)
    Path("data").mkdir()
    Path("data/dataset_info.json").write_text(json.dumps({"magpie_text": {}, "ls960_asr": {}}))
    active = runtime.activate(config)
    try:
        found = arguments._missing_sources(active, types.SimpleNamespace(dataset_dir="data"), "tts.yaml: slm")
    finally:
        runtime.activate(None)
    raise ConfigError(found)


def half_base() -> None:
    block = parse_block({"units": {"count": 5}}, REGISTRY).block
    model = types.SimpleNamespace(
        model_name_or_path="runs/units_base", quantization_bit=None, adapter_name_or_path=None
    )
    training = types.SimpleNamespace(bf16=False, fp16=False, device=types.SimpleNamespace(type="cpu"))
    finetuning = types.SimpleNamespace(
        finetuning_type="lora", pure_bf16=False, create_new_adapter=False, additional_target=None
    )
    raise ConfigError(compatibility.precision_refusals("bfloat16", block, model, training, finetuning, "asr.yaml"))


def other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in surface.SURFACE:
        monkeypatch.delitem(sys.modules, name, raising=False)
    loader = types.ModuleType("llamafactory.model.loader")
    monkeypatch.setitem(sys.modules, loader.__name__, loader)
    monkeypatch.setattr(surface, "installed_version", lambda: "0.9.6")
    surface.require()


def bypassed_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    from slm_plugin.host import hook_check

    monkeypatch.setattr(surface, "installed_version", lambda: "0.9.6")
    raise hook_check._error([hook_check._absent("model.loader.patch_tokenizer", "unit tokens")])


def other_trainer() -> None:
    from slm_plugin.host import workflows

    workflows.refuse_other_trainers({"use_hyper_parallel": True}, "asr.yaml: slm")


def one_answer() -> None:
    from slm_plugin.host import workflows

    info = {"ls960_asr": {"formatting": "slm_asr"}}
    data = types.SimpleNamespace(dataset=["ls960_asr"], eval_dataset=None, dataset_dir=info)
    stage, model = types.SimpleNamespace(stage="dpo"), types.SimpleNamespace(use_unsloth=False)
    raise ConfigError(workflows.refusals(model, data, stage, False, "asr.yaml: slm"))


def misspelt_hook() -> None:
    module = types.ModuleType("my_plugin")
    module.slm_register_mitigation = hookimpl(lambda register: None)
    Registry.load(extra=[module], entry_points=False)


def name_taken_twice() -> None:
    module = types.ModuleType("my_plugin")
    module.slm_register_mitigations = hookimpl(lambda register: register("replay", object))
    Registry.load(extra=[module], entry_points=False)


def other_number_of_units() -> None:
    UnitVocabulary.check(make_tokenizer(50), 10_000)


def missing_column() -> None:
    REGISTRY.stages.get("asr")().sample({"text": "anna", "tokens": [3]}, 100)


def unit_out_of_range() -> None:
    REGISTRY.stages.get("asr")().sample({"text": "anna", "units": [3, 100]}, 100)


def misspelt_unit() -> None:
    REGISTRY.stages.get("tts")().sample({"text": "anna", "interleaf": "anna<|01|>"}, 100)


def unsigned_folder() -> None:
    Path("runs/tokens/train").mkdir(parents=True)
    token_cache.is_ready(types.SimpleNamespace(tokenized_path="runs/tokens"), None, "the current stage")


def no_codec() -> None:
    load_codec("tinny", REGISTRY)


def no_codec_folder() -> None:
    Path("my_codec").mkdir()
    load_codec("my_codec", REGISTRY)


def low_rate() -> None:
    audio.prepare(np.zeros(6000, np.float32), 6000, 16_000)


def no_rate() -> None:
    audio.prepare(np.zeros(6000, np.float32), None, 16_000)


def no_recording() -> None:
    Path("talk.wav").write_bytes(b"not a recording")
    audio.decode("talk.wav")


def too_short() -> None:
    soundfile.write("short.wav", np.zeros(100), 16_000)

    async def hear() -> None:
        worker = EncoderWorker(FakeCodec())
        try:
            await worker.units(Path("short.wav").read_bytes(), "wav", "file")
        finally:
            await worker.close()

    asyncio.run(hear())


def no_step_file() -> None:
    content = {"output": "runs/x", "steps": [{"name": "asr", "train": "asr.yml"}]}
    Path("pipeline.yaml").write_text(yaml.safe_dump(content))
    plan.load(Path("pipeline.yaml"), REGISTRY)


def failing_step() -> None:
    from rich.console import Console

    content = {
        "output": "runs/x",
        "steps": [{"name": "prepare", "command": ["python", "prepare.py"], "outputs": ["rows"]}],
    }
    Path("pipeline.yaml").write_text(yaml.safe_dump(content))
    Path("prepare.py").write_text("import sys\nsys.exit('recordings/ is empty')\n")
    with Progress(Console(quiet=True)) as progress:
        runner.run(plan.load(Path("pipeline.yaml"), REGISTRY), Path("pipeline.yaml"), progress)


def other_base(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("runs/asr").mkdir(parents=True)
    base = {"path": "runs/units_base", "fingerprint": "5f0c1e22ab90"}
    Path("runs/asr/slm.json").write_text(json.dumps({"stage": "asr", "base": base}))
    monkeypatch.setattr(card, "fingerprint", lambda folder: "77d1a03b9c4e")
    require_same_fingerprint(Path("runs/asr"), Path("runs/other_base"))


def no_units_in_the_model() -> None:
    bind_units(make_tokenizer(), FakeCodec(50), "runs/model", "tiny")


def other_codec() -> None:
    bind_units(make_tokenizer(50), FakeCodec(100), "runs/model", "my_codec")


def no_model() -> None:
    engine.read_config("runs/model")


def nobody_at_the_address() -> None:
    try:
        plan_ = types.SimpleNamespace(engine=None, urls=["http://127.0.0.1:9"])
        asyncio.run(running._check(HttpBackend(plan_.urls[0]), plan_))
    except SlmError as error:
        raise type(error)(str(error).replace(":9;", ":8001;")) from None


def taken_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        try:
            server.listen("127.0.0.1", port)
        except SlmError as error:
            text = str(error).split(": ", 1)[1].replace(str(port), "8000")
            raise ConfigError([Problem("--host/--port", text)]) from None


def no_keys() -> None:
    Path("keys.txt").write_text("# keys of the clients\n")
    auth.read_keys(Path("keys.txt"))


def request(**body: Any) -> Callable[[], None]:
    messages = [{"role": "user", "content": "hello"}]
    content = json.dumps({"model": "model", "messages": messages, **body}).encode()
    return lambda: parse_json(ChatRequest, content, UNSUPPORTED)


RAISED: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        unknown_names,
        unknown_mitigation,
        unknown_source,
        half_base,
        other_host,
        bypassed_hook,
        other_trainer,
        one_answer,
        misspelt_hook,
        name_taken_twice,
        other_number_of_units,
        missing_column,
        unit_out_of_range,
        misspelt_unit,
        unsigned_folder,
        no_codec,
        no_codec_folder,
        low_rate,
        no_rate,
        no_recording,
        too_short,
        no_step_file,
        failing_step,
        other_base,
        no_units_in_the_model,
        other_codec,
        no_model,
        nobody_at_the_address,
        taken_port,
        no_keys,
    )
} | {
    "tools": request(tools=[{"type": "function"}]),
    "no_audio_options": request(modalities=["text", "audio"]),
    "streamed_wav": request(modalities=["text", "audio"], audio={"voice": "alloy", "format": "wav"}, stream=True),
}


def without_lists(text: str) -> str:
    """Leave out the names that a message lists, which grow with every plugin: the page shows dots for them."""
    return re.sub(r"(Hooks|Keys|Registered): .*", r"\1: ...", text)


def said_by(name: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    """Return how the command shows the error that a mistake of this name raises."""
    monkeypatch.chdir(folder)
    make = RAISED[name]
    with pytest.raises(SlmError) as caught:
        make(monkeypatch) if "monkeypatch" in make.__code__.co_varnames else make()
    return without_lists(f"{type(caught.value).__name__}: {caught.value}")


@pytest.mark.parametrize("name", RAISED)
def test_the_page_quotes_the_message_of(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert said_by(name, monkeypatch, tmp_path) in QUOTED


def test_the_page_quotes_no_other_message():
    assert len(QUOTED) == len(set(QUOTED)) == len(RAISED)
