"""The text decoder in a real vLLM, which does not load the whole model, answers as transformers does."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import torch
from transformers import MllamaForConditionalGeneration

from slm_serve.engine import Engine

# a minute to start the engine
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(600)]

N_TOKENS = 12
PROMPT = [462, 5, 6, 7, 300]


def test_vllm_generates_what_the_whole_model_does(mllama, decoder, tmp_path):
    model = MllamaForConditionalGeneration.from_pretrained(mllama, dtype=torch.float32).eval()
    settings = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "do_sample": False, "temperature": None}
    expected = model.generate(torch.tensor([PROMPT]), **settings)[0, len(PROMPT) :].tolist()
    engine = Engine(str(decoder), tmp_path / "vllm.log", [])
    try:
        engine.start()
        asyncio.run(engine.ready())
        body = {"prompt": PROMPT, "temperature": 0, "max_tokens": N_TOKENS, "min_tokens": N_TOKENS}
        with httpx.Client(base_url=engine.url, headers={"Authorization": f"Bearer {engine.key}"}) as client:
            body["model"] = client.get("/v1/models").json()["data"][0]["id"]
            found = client.post("/v1/completions", json={**body, "return_token_ids": True}, timeout=120).json()
    finally:
        engine.stop()
    assert found["choices"][0]["token_ids"] == expected
