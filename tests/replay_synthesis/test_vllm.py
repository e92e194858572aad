"""The same rows by vLLM; its server process is a child of its own."""

from __future__ import annotations

import pytest
import torch

from replay_synthesis.world import rows, write_rows
from slm_plugin.errors import EngineError
from slm_plugin.generation.model import load_model, load_speaker
from slm_plugin.generation.protocol import Sampling
from slm_plugin.generation.transformers_engine import TransformersEngine
from slm_plugin.generation.vllm_engine import VllmEngine
from slm_plugin.replay_synthesis.command import run

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def engine(world_model):
    pytest.importorskip("vllm", reason="pip install 'slm-plugin[serve-cpu]'")
    found = VllmEngine(world_model)
    yield found
    found.close()


def test_greedy_answers_equal_those_of_transformers(engine, world_model):
    speaker, other = load_speaker(world_model, None), TransformersEngine(load_model(world_model, None))
    prompts = [speaker.prompt(row["input"]) for row in rows("llm")] + [speaker.user_header()]
    prompts += [speaker.prompt("".join(f"<|{unit}|>" for unit in row["input_unit"])) for row in rows("sqa")]
    sampling = Sampling(0.0, 1.0, 48, speaker.stop_ids, 0, True)
    found, expected = engine.generate(prompts, sampling), other.generate(prompts, sampling)
    assert [(answer.ids, answer.finished) for answer in found] == [(a.ids, a.finished) for a in expected]
    scores = [answer.log_probability for answer in expected]
    assert [answer.log_probability for answer in found] == pytest.approx(scores, abs=2e-3)


def test_draws_are_a_function_of_the_seed_and_of_the_prompt_s_place(engine, world_model):
    speaker = load_speaker(world_model, None)
    prompts = [speaker.user_header()] * 6
    one, same, other = (engine.generate(prompts, Sampling(1.0, 1.0, 40, speaker.stop_ids, s)) for s in (1, 1, 2))
    assert one == same != other
    assert engine.generate(prompts[:2], Sampling(1.0, 1.0, 40, speaker.stop_ids, 1)) == one[:2]
    assert len({answer.ids for answer in one}) > 2


@pytest.mark.slow
def test_an_adapter_is_merged_for_it(world_model, tmp_path):
    pytest.importorskip("vllm", reason="pip install 'slm-plugin[serve-cpu]'")
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    # strong enough to be heard
    config = LoraConfig(r=4, lora_alpha=400, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(world_model), config)
    adapted.save_pretrained(tmp_path / "adapter")
    speaker = load_speaker(world_model, tmp_path / "adapter")
    prompts, sampling = [speaker.prompt("say red cat")], Sampling(0.0, 1.0, 12, speaker.stop_ids, 0)
    expected = TransformersEngine(load_model(world_model, tmp_path / "adapter")).generate(prompts, sampling)
    plain = TransformersEngine(load_model(world_model, None)).generate(prompts, sampling)
    merged = VllmEngine(world_model, tmp_path / "adapter")
    try:
        assert merged.generate(prompts, sampling) == expected != plain
    finally:
        merged.close()


@pytest.mark.slow
def test_a_folder_without_a_model_shows_the_end_of_the_log(tmp_path):
    pytest.importorskip("vllm", reason="pip install 'slm-plugin[serve-cpu]'")
    with pytest.raises(EngineError, match=r"(?s)vLLM ended with code 1. The end of its log:.*config.json"):
        VllmEngine(tmp_path)


@pytest.mark.slow
def test_the_command_writes_with_vllm_what_it_writes_with_transformers(world_model, tmp_path):
    pytest.importorskip("vllm", reason="pip install 'slm-plugin[serve-cpu]'")
    from replay_synthesis.test_synthesise import options

    prompts = write_rows(tmp_path / "prompts.jsonl", rows("tts"))
    for name in ("vllm", "transformers"):
        given = {"prompts": prompts, "temperature": 0.0, "engine": name}
        run(options(world_model, tmp_path / name, "tts", 12, **given))
    texts = [(tmp_path / name / "own_tts.jsonl").read_bytes() for name in ("vllm", "transformers")]
    assert texts[0] == texts[1]
