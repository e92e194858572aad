"""Tasks of lm-evaluation-harness over local data, on a tiny real model; its own way of asking is the reference."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from eval.book import Book, score
from slm_plugin.errors import DataError, PipelineError, PluginError
from slm_plugin.eval.generator import EngineGenerator, load_generator
from slm_plugin.records import Score
from tiny_models import make_model

pytest.importorskip("lm_eval", reason="pip install 'slm-plugin[eval]'")

WORDS = ["the", "a", "my", "your", "this", "that"]
ROWS = [
    {"question": f"the cat sat on {word}", "choices": [" mat", " red dog", " one two three"], "label": place % 3}
    for place, word in enumerate(WORDS)
]
TASKS: dict[str, dict[str, Any]] = {
    "local_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "local_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[label]}}",
        "generation_kwargs": {"until": ["e"], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    },
    "local_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}


def write_tasks(folder: Path) -> Path:
    """Write task files over a local JSON file, in the form that the harness documents."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    (folder / "tasks").mkdir()
    for name, task in TASKS.items():
        content = {"task": name, **data, "test_split": "test", **task}
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / "tasks"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("harness"))


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> EngineGenerator:
    return load_generator(make_model(tmp_path_factory.mktemp("model") / "plain"))


@pytest.fixture(scope="module")
def expected(generator: EngineGenerator, tasks: Path) -> dict[str, Any]:
    """What the harness finds with its own class for models of transformers."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    model = HFLM(pretrained=generator._engine._model, tokenizer=generator.tokenizer, batch_size=2)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = simple_evaluate(model=model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=100)
    assert found is not None
    return found


def ask(registry, generator, tasks, task: str, **options: Any) -> Score:
    return score(registry, "lm_harness", generator, task=task, include=str(tasks), **options)


def test_choices_are_scored_as_by_the_harness_itself(registry, generator, tasks, expected) -> None:
    for metric in ("acc", "acc_norm"):
        found = ask(registry, generator, tasks, "local_choice", metric=metric)
        assert found.value == expected["results"]["local_choice"][f"{metric},none"]
        assert found.standard_error == pytest.approx(expected["results"]["local_choice"][f"{metric}_stderr,none"])
        assert (found.n, found.better) == (6, "higher")
        assert [item[0] for item in found.items] == [one[metric] for one in expected["samples"]["local_choice"]]
    # every choice of every question is as probable as the harness finds it
    assert found.examples[0]["prompt"] == "the cat sat on the"


def test_choices_have_the_probabilities_that_the_harness_finds(generator, expected) -> None:
    from slm_plugin.eval.harness_model import HarnessModel

    model = HarnessModel(generator, 4096)
    for sample in expected["samples"]["local_choice"]:
        pairs = [((context, answer), *model._encode_pair(context, answer)) for context, answer in sample["arguments"]]
        told = model._loglikelihood_tokens(pairs)
        assert [value for value, _ in told] == pytest.approx([one[0] for one in sample["filtered_resps"]], abs=1e-3)
        assert [first for _, first in told] == [one[1] for one in sample["filtered_resps"]]


def test_answers_are_written_as_by_the_harness_itself(registry, generator, tasks, expected) -> None:
    found = ask(registry, generator, tasks, "local_answer", examples=6)
    written = [one["filtered_resps"][0] for one in expected["samples"]["local_answer"]]
    assert [example["answer"] for example in found.examples] == written
    assert all("e" not in answer for answer in written)
    assert len(set(written)) > 1


def test_whole_texts_are_scored_as_by_the_harness_itself(registry, generator, tasks, expected) -> None:
    found = ask(registry, generator, tasks, "local_text")
    assert found.value == pytest.approx(expected["results"]["local_text"]["word_perplexity,none"], rel=1e-4)
    assert (found.better, found.items) == ("lower", ())


def test_long_texts_are_scored_window_by_window(generator) -> None:
    from slm_plugin.eval.harness_model import HarnessModel

    text = "the cat sat on the mat " * 5
    ids = generator.tokenizer.encode(text)
    request = type("Request", (), {"args": (text,)})
    # windows of seven tokens: each is scored behind the token before it alone
    pairs, before = [], generator.tokenizer.bos_token_id
    for start in range(0, len(ids), 7):
        window = ids[start : start + 7]
        if len(window) == 7 or not pairs:
            pairs.append(([before], window))
        else:
            # the harness fills the last window from what stands before it
            fill = ids[-8 : len(ids) - len(window)]
            pairs.append((fill, window))
        before = window[-1]
    expected = sum(sum(one.log_probabilities) for one in generator.tell(pairs))
    assert HarnessModel(generator, 8).loglikelihood_rolling([request]) == [pytest.approx(expected, abs=1e-4)]


def test_the_first_documents_can_be_asked_as_chats(registry, generator, tasks) -> None:
    found = ask(registry, generator, tasks, "local_answer", n=2, chat=True)
    assert found.n == 2
    assert found.examples[0]["prompt"].endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")


def test_asking_leaves_the_caller_s_random_numbers_alone(registry, generator, tasks) -> None:
    import random

    import numpy as np
    import torch

    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    ask(registry, generator, tasks, "local_choice", n=1)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()) == before


def test_mistakes_are_told(registry, generator, tasks) -> None:
    with pytest.raises(PluginError, match=r"no task 'local_chioce' or in .*Did you mean 'local_choice'\?"):
        ask(registry, generator, tasks, "local_chioce")
    with pytest.raises(PluginError, match=r"has no metric 'accc'\. Did you mean 'acc,none'\?"):
        ask(registry, generator, tasks, "local_choice", metric="accc", n=1)
    with pytest.raises(PipelineError, match="works on token ids"):
        ask(registry, Book(str), tasks, "local_choice")
    with pytest.raises(PipelineError, match="needs served_model"):
        ask(registry, generator, tasks, "local_choice", served="http://127.0.0.1:9")
    (tasks.parent / "rows.jsonl").rename(tasks.parent / "away.jsonl")
    try:
        with pytest.raises(DataError, match="the task local_text cannot be scored: FileNotFoundError"):
            ask(registry, generator, tasks, "local_text")
    finally:
        (tasks.parent / "away.jsonl").rename(tasks.parent / "rows.jsonl")


@pytest.mark.slow
def test_a_task_of_the_harness_s_own_on_the_hub(registry, generator) -> None:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        pytest.skip("arc_easy must be downloaded: HF_HUB_OFFLINE=0 pytest -m slow")
    assert score(registry, "lm_harness", generator, task="arc_easy", n=4).n == 4
