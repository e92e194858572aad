"""Experts taken up, exchanged and refused while the server runs; the engine's side is played, the checks are real."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import save_file

from slm_plugin import card
from slm_plugin.errors import EngineError
from slm_serve.backends.experts import ExpertBackend
from slm_serve.backends.fake import FakeBackend
from slm_serve.backends.protocol import ModelCard, SamplingParams
from slm_serve.errors import RefusedError
from slm_serve.experts import Shelf, engine_arguments
from slm_serve.ops.metrics import Metrics
from tiny_models import make_model

pytestmark = pytest.mark.anyio


def adapter(folder, value=0.1, rank=4, module="model.layers.0.self_attn.q_proj"):
    """Write a LoRA adapter for the tiny model, as PEFT does."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = f"base_model.model.{module}"
    tensors = {f"{name}.lora_A.weight": torch.full((rank, 64), value), f"{name}.lora_B.weight": torch.ones(64, rank)}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


class Door:
    """Plays vLLM's routes for adapters: remembers what is loaded, from which copy."""

    def __init__(self, engine):
        self.engine = engine
        self.loaded = {}
        self.away = False

    async def load(self, version, folder):
        if self.away:
            raise EngineError("away")
        if (folder / "unloved").exists():
            raise RefusedError("vLLM does not take it")
        self.loaded[version] = folder

    async def unload(self, version):
        self.loaded.pop(version, None)


class Engine(FakeBackend):
    """A fake engine that lists what came through the door."""

    def __init__(self):
        super().__init__([[[1], [2]]], model="base")
        self.door = Door(self)

    async def models(self):
        return [*await super().models(), *(ModelCard(name) for name in self.door.loaded)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = make_model(tmp_path_factory.mktemp("base") / "model", units=5)
    templated(folder, "0" * 12, "llama3")
    return folder


def templated(folder, fingerprint, name="chatml"):
    """Write a card that says with which prompts a model was trained."""
    card.write(folder, {"template": {"name": name, "fingerprint": fingerprint}})


@pytest.fixture
def shelf(tmp_path, base):
    engine = Engine()
    backend = ExpertBackend(engine)
    (tmp_path / "experts").mkdir()
    found = Shelf(
        tmp_path / "experts", base, tmp_path / "scratch", engine.door, backend, frozenset({"base"}), Metrics()
    )
    found.engine, found.backend, found.folder = engine, backend, tmp_path / "experts"
    return found


async def names(shelf):
    return [card.id for card in await shelf.backend.models()]


async def ask(shelf, model):
    return [d async for d in shelf.backend.generate([1], SamplingParams(max_tokens=2), model)]


async def test_experts_are_asked_for_by_the_names_of_their_folders(shelf):
    adapter(shelf.folder / "cooking")
    (shelf.folder / "notes").mkdir()
    await shelf.scan(settled=True)
    assert await names(shelf) == ["base", "cooking"]
    await ask(shelf, "cooking")
    await ask(shelf, "base")
    version, plain = (call.model for call in shelf.engine.calls)
    assert version in shelf.engine.door.loaded
    assert version.startswith("cooking@")
    assert plain == "base"


async def test_a_folder_is_taken_when_it_no_longer_changes(shelf):
    adapter(shelf.folder / "cooking")
    await shelf.scan()
    assert await names(shelf) == ["base"]
    await shelf.scan()
    assert await names(shelf) == ["base", "cooking"]


async def test_an_expert_is_exchanged_under_its_answers(shelf):
    adapter(shelf.folder / "cooking")
    await shelf.scan(settled=True)
    shelf.engine.hang_after = 1
    running = shelf.backend.generate([1], SamplingParams(max_tokens=2), "cooking")
    await anext(running)
    (old,) = shelf.engine.door.loaded
    adapter(shelf.folder / "cooking", value=0.25)
    await shelf.scan(settled=True)
    # the answer that has begun keeps its version; the next one gets the new one
    assert len(shelf.engine.door.loaded) == 2
    shelf.engine.hang_after = None
    await ask(shelf, "cooking")
    assert shelf.engine.calls[0].model == old != shelf.engine.calls[1].model
    await running.aclose()
    await shelf.scan()
    assert list(shelf.engine.door.loaded) == [shelf.engine.calls[1].model]
    assert await names(shelf) == ["base", "cooking"]


async def test_an_expert_whose_folder_goes_is_gone(shelf):
    adapter(shelf.folder / "cooking")
    await shelf.scan(settled=True)
    shutil.rmtree(shelf.folder / "cooking")
    await shelf.scan()
    assert await names(shelf) == ["base"]
    assert shelf.engine.door.loaded == {}


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("base", lambda f: None, "the model itself has that name"),
        ("a b", lambda f: None, "letters, digits"),
        ("other", lambda f: adapter(f, module="model.layers.9.self_attn.q_proj"), "layers.9"),
        ("cut", lambda f: (f / "adapter_model.safetensors").write_bytes(b"half"), "adapter_model"),
        ("nan", lambda f: adapter(f, value=float("nan")), "finite"),
        ("unloved", lambda f: (f / "unloved").touch(), "vLLM does not take it"),
        ("templated", lambda f: templated(f, "1" * 12), "with template 'chatml'"),
    ],
)
async def test_what_would_not_work_is_refused_with_the_reason_and_once(shelf, caplog, name, spoil, words):
    adapter(shelf.folder / "good")
    spoil(adapter(shelf.folder / name))
    with caplog.at_level(logging.ERROR, "slm_serve.experts"):
        await shelf.scan(settled=True)
        await shelf.scan(settled=True)
    (record,) = [record for record in caplog.records if record.name == "slm_serve.experts"]
    assert words in record.fields["why"]
    assert await names(shelf) == ["base", "good"]


async def test_a_version_that_is_refused_leaves_the_one_before(shelf):
    adapter(shelf.folder / "cooking")
    await shelf.scan(settled=True)
    before = dict(shelf.engine.door.loaded)
    adapter(shelf.folder / "cooking", value=float("inf"))
    await shelf.scan(settled=True)
    assert shelf.engine.door.loaded == before
    assert await names(shelf) == ["base", "cooking"]


async def test_a_new_engine_gets_every_expert_again(shelf):
    adapter(shelf.folder / "cooking")
    await shelf.scan(settled=True)
    held = dict(shelf.engine.door.loaded)
    shelf.engine.door.loaded.clear()
    await shelf.reload()
    assert shelf.engine.door.loaded == held


async def test_an_engine_that_is_away_is_asked_again(shelf):
    adapter(shelf.folder / "cooking")
    shelf.engine.door.away = True
    with pytest.raises(EngineError):
        await shelf.scan(settled=True)
    shelf.engine.door.away = False
    await shelf.scan(settled=True)
    assert await names(shelf) == ["base", "cooking"]


def test_the_engine_is_told_the_largest_rank(tmp_path):
    adapter(tmp_path / "a", rank=4)
    # 16 at least
    assert engine_arguments(tmp_path, None)[-1] == "16"
    adapter(tmp_path / "b", rank=24)
    # the next that vLLM takes
    assert engine_arguments(tmp_path, None)[-1] == "32"
    assert engine_arguments(tmp_path, 100)[-1] == "128"
