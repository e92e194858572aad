"""Units in the rows of a padded model, exported and served by a real vLLM."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM

from host.world import export_config, train_config
from slm_plugin import card
from slm_serve.engine import Engine
from tiny_models import make_model

# a minute to start the engine for each of the two
pytestmark = [
    pytest.mark.host,
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("host"),
]

N_TOKENS = 12


@pytest.mark.parametrize("tie", [False, True], ids=["untied", "tied"])
def test_vllm_answers_as_transformers_from_units_in_the_padding(tie, data, run_host, tmp_path):
    text = make_model(tmp_path / "text", tie=tie, padding=271)
    run_host(export_config(text, tmp_path / "base"))
    run_host(train_config(tmp_path / "base", data, tmp_path / "asr", learning_rate=1e-2))
    run_host(export_config(tmp_path / "base", tmp_path / "model", adapter=tmp_path / "asr", slm={}))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    first = card.read(tmp_path / "model")["units"]["first_id"]
    prompt = [5, 6, first, first + 49, first + 3]
    options = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "do_sample": False}
    expected = model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist()
    engine = Engine(str(tmp_path / "model"), tmp_path / "vllm.log", [])
    try:
        engine.start()
        asyncio.run(engine.ready())
        body = {"prompt": prompt, "temperature": 0, "max_tokens": N_TOKENS, "min_tokens": N_TOKENS}
        with httpx.Client(base_url=engine.url, headers={"Authorization": f"Bearer {engine.key}"}) as client:
            body["model"] = client.get("/v1/models").json()["data"][0]["id"]
            found = client.post("/v1/completions", json={**body, "return_token_ids": True}, timeout=120).json()
    finally:
        engine.stop()
    assert found["choices"][0]["token_ids"] == expected
