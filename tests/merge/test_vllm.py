"""A merged model of unequal vocabularies in a real vLLM answers as in transformers."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge.conftest import members
from slm_plugin.merge.plan import parse_merge
from slm_plugin.merge.run import merge
from slm_serve.engine import Engine
from tiny_models import make_model

# a minute to start the engine for each of the two
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

N_TOKENS = 12


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_vllm_serves_a_merged_model(tie, registry, tmp_path):
    text = make_model(tmp_path / "text", tie=tie, seed=1)
    spoken = [make_model(tmp_path / f"m{seed}", tie=tie, units=20, seed=seed) for seed in (2, 3)]
    models = members(spoken, (0.6, 0.4), density=0.8)
    block = {"method": "ties", "base_model": str(text), "models": models}
    merge(parse_merge(block, registry, "merge"), tmp_path / "merged", 100_000)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    # the last one is unit 3
    prompt = [5, 6, 7, 300, len(AutoTokenizer.from_pretrained(text)) + 3]
    options = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "do_sample": False}
    expected = model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
    engine = Engine(str(tmp_path / "merged"), tmp_path / "vllm.log", [])
    try:
        engine.start()
        asyncio.run(engine.ready())
        body = {"model": str(tmp_path / "merged"), "prompt": prompt, "temperature": 0, "max_tokens": N_TOKENS}
        body |= {"min_tokens": N_TOKENS, "return_token_ids": True}
        with httpx.Client(base_url=engine.url, headers={"Authorization": f"Bearer {engine.key}"}) as client:
            served = client.get("/v1/models").json()["data"][0]["id"]
            found = client.post("/v1/completions", json={**body, "model": served}, timeout=120).json()
    finally:
        engine.stop()
    assert found["choices"][0]["token_ids"] == expected
