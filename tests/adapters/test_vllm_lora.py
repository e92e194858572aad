"""Converted experts in a real vLLM: what export-check says holds, and two of them answer as transformers does."""

from __future__ import annotations

import asyncio
import warnings

import httpx
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.worlds import KINDS, make_adapter
from slm_plugin.adapters.convert import convert
from slm_plugin.adapters.lora import LoraAdapter
from slm_plugin.adapters.serving import refusals
from slm_serve.engine import Engine
from tiny_models import make_model

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

PROMPTS = ([462, 70, 300, 12], [5, 6, 7], [440, 17, 17, 210, 99, 30])
N_TOKENS = 12
EXPERTS = {
    "first": {"modules_to_save": ["embed_tokens", "lm_head"], **KINDS["patterns"]},
    "second": {"modules_to_save": ["embed_tokens", "lm_head"], "use_rslora": True},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two experts with the rows of one parent, converted; and adapters on the shared base to try."""
    folder = tmp_path_factory.mktemp("experts")
    base = make_model(folder / "base", units=40)
    for seed, (name, options) in enumerate(EXPERTS.items()):
        make_adapter(base, folder / name, seed=seed, units=False, **options)
    path = folder / "second" / "adapter_model.safetensors"
    parent = load_file(folder / "first" / "adapter_model.safetensors")
    kinds = LoraAdapter(folder / "first").kinds()
    rows = {key: parent[key] for key, (kind, _) in kinds.items() if kind == "replaced"}
    save_file(load_file(path) | rows, path)
    for name in EXPERTS:
        convert(folder / name, base, folder / f"{name}_out")
    for kind in ("plain", "modules_to_save", "rows", "dora", "patterns"):
        make_adapter(folder / "first_out" / "base", folder / "tried" / kind, units=False, **KINDS[kind])
    return folder


@pytest.fixture(scope="module")
def engine(world):
    modules = [f"{name}={world / f'{name}_out' / 'adapter'}" for name in EXPERTS]
    extra = ["--enable-lora", "--max-loras", "2", "--max-lora-rank", "8", "--lora-modules", *modules]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
        engine = Engine(str(world / "first_out" / "base"), world / "vllm.log", extra)
        engine.start()
    try:
        asyncio.run(engine.ready())
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="module")
def post(engine):
    """Ask the running server."""
    with httpx.Client(base_url=engine.url, headers={"Authorization": f"Bearer {engine.key}"}, timeout=120) as client:
        yield client.post


def answer(post, model, prompt):
    body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": N_TOKENS, "ignore_eos": True}
    found = post("/v1/completions", json={**body, "return_token_ids": True}).json()
    return found["choices"][0]["token_ids"]


def expected(base, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter) if adapter else model
        options = {"do_sample": False, "max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS}
        model.generation_config.eos_token_id = None
        return [model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist() for prompt in PROMPTS]


def test_converted_experts_answer_as_transformers_does_with_the_originals(world, post):
    answers = {}
    for name in EXPERTS:
        assert refusals(world / name, world / "base") != []
        assert refusals(world / f"{name}_out" / "adapter", world / "first_out" / "base") == []
        answers[name] = [answer(post, name, prompt) for prompt in PROMPTS]
        assert answers[name] == expected(world / "base", world / name)
    answers["base"] = [answer(post, "base", prompt) for prompt in PROMPTS]
    assert answers["base"] == expected(world / "first_out" / "base", None)
    assert len({str(found) for found in answers.values()}) == 3


def load(post, world, kind):
    return post("/v1/load_lora_adapter", json={"lora_name": kind, "lora_path": str(world / "tried" / kind)})


@pytest.mark.parametrize("kind", ["plain", "modules_to_save", "rows", "dora"])
def test_vllm_refuses_what_export_check_says_it_refuses(kind, world, post):
    response = load(post, world, kind)
    assert (response.status_code == 200) == (refusals(world / "tried" / kind) == []), response.text


def test_vllm_takes_scales_of_their_own_and_computes_something_else(world, post):
    base = world / "first_out" / "base"
    assert any("scales of their own" in reason for reason in refusals(world / "tried" / "patterns", base))
    assert load(post, world, "patterns").status_code == 200
    found = [answer(post, "patterns", prompt) for prompt in PROMPTS]
    assert found != expected(base, world / "tried" / "patterns")
