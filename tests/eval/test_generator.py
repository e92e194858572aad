"""Greedy batched answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slm_plugin.errors import WeightsError
from slm_plugin.eval.generator import TransformersGenerator, load_generator
from slm_plugin.generation.transformers_engine import _cut
from slm_plugin.vocabulary import UnitVocabulary, units_to_text
from tiny_models import make_model

PROMPTS = ["hello", "what is your name " * 6, "the cat sat on the mat", "<|3|><|17|>", "red"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "units", units=20)


@pytest.fixture(scope="module")
def generator(folder: Path) -> TransformersGenerator:
    return load_generator(folder)


def alone(generator: TransformersGenerator, prompt: str, n_tokens: int) -> str:
    """Answer one prompt token by token, with neither padding nor a cache."""
    tokenizer, model = generator.tokenizer, generator._engine._model
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    start = len(ids)
    with torch.inference_mode():
        for _ in range(n_tokens):
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id:
                break
            ids.append(token)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=False))


def test_batched_answers_equal_those_given_one_by_one(generator: TransformersGenerator) -> None:
    assert generator.answer(PROMPTS, 8) == [alone(generator, prompt, 8) for prompt in PROMPTS]


def test_the_size_of_batches_changes_nothing(generator: TransformersGenerator) -> None:
    small = TransformersGenerator(generator._engine._model, generator.tokenizer, batch=2)
    assert small.answer(PROMPTS, 8) == generator.answer(PROMPTS, 8)


def test_answers_end_before_the_end_of_turn(generator: TransformersGenerator) -> None:
    # a model that answers "cat", the end of the turn, and whatever follows
    end = generator.tokenizer.eos_token_id
    cat, dog = generator.tokenizer.encode("cat dog", add_special_tokens=False)[:2]
    assert end in generator._speaker.stop_ids
    assert _cut([cat, end, dog], generator._speaker.stop_ids) == ([cat], True)


def test_units_are_kept_in_answers(generator: TransformersGenerator) -> None:
    assert generator.vocabulary is not None
    assert generator._speaker.text(tuple(generator.vocabulary.ids([3, 17]))) == units_to_text([3, 17])


def test_no_prompts_give_no_answers(generator: TransformersGenerator) -> None:
    assert generator.answer([], 8) == []


def test_units_are_recognised_and_a_model_without_has_none(generator: TransformersGenerator, tmp_path: Path) -> None:
    found = UnitVocabulary.find(generator.tokenizer)
    assert generator.vocabulary == found
    assert found is not None
    assert found.count == 20
    assert load_generator(make_model(tmp_path / "plain")).vocabulary is None


def test_an_adapter_is_merged_into_the_answers(generator: TransformersGenerator, folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = load_generator(folder, tmp_path / "adapter")
    expected = TransformersGenerator(adapted, generator.tokenizer)
    assert loaded.answer(PROMPTS, 8) == expected.answer(PROMPTS, 8)
    assert loaded.answer(PROMPTS, 8) != generator.answer(PROMPTS, 8)


def test_a_missing_folder_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no model folder .*nowhere"):
        load_generator(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"there is no model folder .*no_adapter"):
        load_generator(folder, tmp_path / "no_adapter")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no tokenizer that can be loaded"):
        load_generator(tmp_path)


def test_log_probabilities_are_those_of_each_chat_alone(generator: TransformersGenerator) -> None:
    chats = [("hello", "cat dog <|3|><|7|>"), ("what is your name " * 4, "red"), ("red", "<|0|>")]
    told = generator.log_probabilities(chats)
    tokenizer, model = generator.tokenizer, generator._engine._model
    for (user, assistant), (ids, logs) in zip(chats, told, strict=True):
        prompt = generator._speaker.prompt(user)
        assert ids == tokenizer.encode(assistant, add_special_tokens=False)
        with torch.inference_mode():
            whole = model(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
        # the token at position t is told by the logits at t - 1
        expected = [float(whole[len(prompt) + place - 1, token]) for place, token in enumerate(ids)]
        assert logs == pytest.approx(expected, abs=1e-4)
