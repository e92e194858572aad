"""A host that reaches its tokenizer, its data, its model or its trainer by another path than the patched one."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from host.world import UNITS, train_config
from slm_plugin.errors import HostError
from slm_plugin.host import runtime

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

REPLAY = {"replay": {"sources": {"llm": 0.5}}}
SCHEDULED = {"replay": {"sources": {"llm": 0.5}, "schedule": {"shape": "linear", "start": 1.0, "end": 0.0}}}
BYPASSED = [
    ("model.loader.patch_tokenizer", "unit tokens"),
    ("data.template.get_template_and_fix_tokenizer", "the check of the template"),
    ("train.sft.workflow.get_dataset", "replay and the checks of tokenized_path"),
    ("data.loader._get_preprocessed_dataset", "long_samples and the counts of rows"),
    ("data.loader._get_dataset_processor", "rows that long_samples has fitted"),
    ("model.patcher.resize_embedding_layer", "seeded rows of the units"),
    ("model.adapter._setup_lora_tuning", "train_units and lora_scale"),
    ("model.adapter.init_adapter", "the check of the rows that train"),
]
CALLERS = {
    "data.template.get_template_and_fix_tokenizer": "train.sft.workflow",
    "model.adapter.init_adapter": "model.loader",
}
"""Modules that hold a name of their own for a function of another."""

NOT_EXPECTED = {
    # tested by names of their own, below
    "hparams.parser.read_args",
    "hparams.parser.get_train_args",
    "train.tuner._training_function",
    # outside training
    "hparams.parser.get_infer_args",
    "train.tuner.export_model",
    "v1.config.arg_parser.get_args",
    # names of data sets and numbers of rows in messages only
    "data.converter.align_dataset",
    "data.loader._get_merged_dataset",
    "data.loader.get_dataset_list",
}
"""Patched functions that no training is checked for."""


@pytest.fixture
def config(llm, data, tmp_path):
    def make(*mitigations: Any, **changes: Any) -> dict[str, Any]:
        slm = {"stage": "asr", "units": {"count": UNITS}, "mitigations": list(mitigations)}
        return train_config(llm, data, tmp_path, slm=slm, **changes)

    return make


@pytest.fixture
def workflow(run_host):
    return importlib.import_module("llamafactory.train.sft.workflow")


def refusal(run_host, config: dict[str, Any]) -> str:
    with pytest.raises(HostError) as caught:
        run_host(config)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("LLaMA-Factory 0.9.5 trains without parts of the slm block: ")
    return text


def test_a_run_with_every_kind_of_hook_passes(config, run_host):
    run_host(config(REPLAY, "l2_anchor", "kl_anchor", "llrd"))
    assert runtime.active().hooks_checked


@pytest.mark.parametrize(("symbol", "effect"), BYPASSED, ids=[symbol for symbol, _ in BYPASSED])
def test_a_bypassed_function_is_named_with_its_effect_before_the_first_step(
    symbol, effect, config, run_host, monkeypatch
):
    module, _, name = symbol.rpartition(".")
    module = importlib.import_module(f"llamafactory.{CALLERS.get(symbol, module)}")
    monkeypatch.setattr(module, name, inspect.unwrap(getattr(module, name)))
    text = refusal(run_host, config(REPLAY))
    assert f"{symbol} was not called ({effect})" in text
    assert not (runtime.active().output_dir / "adapter_model.safetensors").exists()


# trl and what it imports warn about themselves
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")
def test_every_patched_function_is_checked_for_or_named_with_the_reason_why_not(run_host):
    from slm_plugin.host import activation, hook_check

    class Run:
        finetuning_args = type("F", (), {"stage": "sft", "finetuning_type": "lora"})
        data_args = type("D", (), {"tokenized_path": None})
        model_args = type("M", (), {"resize_vocab": True})

    assert list(hook_check._expected_calls(Run)) == BYPASSED
    patched = set()
    for name in activation.PATCHES:
        for value in vars(importlib.import_module(name)).values():
            patched.add(getattr(value, "slm_recorded", "").removeprefix("llamafactory."))
    stages = {f"train.{stage}.workflow.get_dataset" for stage in ("pt", "rm", "kto", "dpo")}
    assert patched - {""} - stages == NOT_EXPECTED | {symbol for symbol, _ in BYPASSED}


def test_a_bypassed_parser_is_named(config, run_host, monkeypatch):
    from llamafactory.train import tuner

    monkeypatch.setattr(tuner, "get_train_args", inspect.unwrap(tuner.get_train_args))
    text = refusal(run_host, config())
    assert "hparams.parser.get_train_args was not called (the whole slm block)" in text


def test_arguments_of_another_class_with_unknown_keys_allowed_are_no_way_around(config, run_host, monkeypatch):
    from llamafactory.hparams import parser
    from llamafactory.train import tuner

    (ours,) = [cls for cls in parser._TRAIN_ARGS if "slm" in cls.__dataclass_fields__]
    monkeypatch.setattr(parser, "_TRAIN_ARGS", [ours.__mro__[1] if cls is ours else cls for cls in parser._TRAIN_ARGS])
    monkeypatch.setattr(tuner, "get_train_args", inspect.unwrap(tuner.get_train_args))
    monkeypatch.setenv("ALLOW_EXTRA_ARGS", "1")
    assert "the whole slm block" in refusal(run_host, config())


def test_a_trainer_of_another_class_is_named(config, run_host, workflow, monkeypatch):
    monkeypatch.setattr(workflow, "CustomSeq2SeqTrainer", workflow.CustomSeq2SeqTrainer.__mro__[1])
    text = refusal(run_host, config(REPLAY, "kl_anchor"))
    assert "the trainer of stage: sft was built from another class (slm.json and hooks)" in text


def test_rows_that_are_not_those_of_replay_are_named(config, run_host, workflow, monkeypatch):
    class OtherRows(workflow.CustomSeq2SeqTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.train_dataset = self.train_dataset.select(range(8))

    monkeypatch.setattr(workflow, "CustomSeq2SeqTrainer", OtherRows)
    text = refusal(run_host, config(REPLAY))
    assert "the trainer's rows are not those of get_dataset (replay: llm)" in text


@pytest.mark.parametrize(
    ("mitigation", "method", "told"),
    [
        ("llrd", "create_optimizer", "trainer.create_optimizer was not called (learning rates from mitigations)"),
        (SCHEDULED, "_get_train_sampler", "trainer._get_train_sampler was not called (the order of replayed rows)"),
        ("kl_anchor", "compute_loss", "trainer.compute_loss was not called (terms of the loss from mitigations)"),
        ("l2_anchor", "_hook_step", "the optimizer has no step hook (anchors and other terms of the gradient"),
    ],
    ids=["llrd", "schedule", "kl_anchor", "l2_anchor"],
)
def test_a_method_of_our_trainer_that_is_no_longer_called_is_named(
    mitigation, method, told, config, run_host, workflow, monkeypatch
):
    ours = workflow.CustomSeq2SeqTrainer
    stock = getattr(ours.__mro__[1], method, lambda self, optimizer: None)
    monkeypatch.setattr(ours, method, stock)
    assert told in refusal(run_host, config(mitigation))


def test_a_neutral_mitigation_needs_no_hook(config, run_host, workflow, monkeypatch):
    monkeypatch.setattr(workflow.CustomSeq2SeqTrainer, "_hook_step", lambda self, optimizer: None)
    run_host(config({"l2_anchor": {"strength": 0}}))


def test_the_function_that_a_ray_worker_runs_has_the_block_and_the_check(config, run_host):
    from llamafactory.train import tuner

    object.__new__(tuner.Worker)._training_function({"args": config(REPLAY), "callbacks": []})
    assert runtime.active().hooks_checked


def test_a_training_loop_without_callbacks_is_reported_at_its_end(config, run_host, monkeypatch):
    from llamafactory.train import tuner

    monkeypatch.setattr(tuner, "run_sft", lambda *args: None)
    assert "its training loop calls no callback of transformers" in refusal(run_host, config())


def test_without_a_block_nothing_is_checked(config, run_host, workflow, monkeypatch):
    monkeypatch.setattr(workflow, "CustomSeq2SeqTrainer", workflow.CustomSeq2SeqTrainer.__mro__[1])
    run_host(config() | {"slm": None} | {"dataset": "llm"})


def test_a_trainer_of_the_users_own_program_is_left_alone(config, run_host, llm, tmp_path):
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    run_host(config())
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
    arguments = TrainingArguments(tmp_path / "own", max_steps=1, report_to="none", use_cpu=True, save_strategy="no")
    Trainer(AutoModelForCausalLM.from_pretrained(llm), arguments, train_dataset=rows).train()
