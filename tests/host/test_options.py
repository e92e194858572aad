"""LLaMA-Factory's own options beside a block: each acts as it does without one, or is refused by name."""

from __future__ import annotations

import itertools
import json
import types

import pytest

from host.test_replay import block
from host.world import UNITS, epochs, export_config, same, train_config, weights, write_data
from slm_plugin import card
from slm_plugin.errors import ConfigError
from slm_plugin.vocabulary import text_to_units

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def anchored(**options):
    mitigations = [{"kl_anchor": {"strength": 1.0, **options}}]
    return {"stage": "tts", "units": {"count": UNITS}, "mitigations": mitigations}


def terms(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["extra_loss"] for entry in history if "extra_loss" in entry]


# --- order of rows -------------------------------------------------------------------------------------------------

IN_ORDER = [{"disable_shuffling": True}, {"train_sampling_strategy": "sequential"}]
KINDS = {
    "once": {},
    "epoch": {"resample": "epoch"},
    "schedule": {"schedule": {"shape": "linear", "start": 1.0, "end": 0.5}},
    "surprise": {"pick": "surprise"},
}


@pytest.fixture(scope="module")
def order_of_rows(units_base, data, run_host, tmp_path_factory):
    """The order in which the host itself visits the 40 rows of the current stage."""
    from llamafactory.train.sft import workflow

    from slm_plugin.host import trainer

    rows = []
    stock = workflow.CustomSeq2SeqTrainer
    hooked = trainer.with_hooks(stock.__mro__[1])
    plain = hooked.compute_loss

    def compute_loss(self, model, inputs, *args, **kwargs):
        rows.extend(tuple(ids[ids != self.processing_class.pad_token_id].tolist()) for ids in inputs["input_ids"])
        return plain(self, model, inputs, *args, **kwargs)

    hooked.compute_loss = compute_loss
    workflow.CustomSeq2SeqTrainer = hooked
    try:
        folder = tmp_path_factory.mktemp("order")
        config = train_config(units_base, data, folder / "x", stage="asr", disable_shuffling=True, **epochs(1))
        run_host(config)
    finally:
        workflow.CustomSeq2SeqTrainer = stock
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", IN_ORDER, ids=["disable_shuffling", "sequential"])
def test_the_current_rows_keep_their_order_and_replay_is_spread_among_them(
    option, kind, order_of_rows, units_base, data, run_host, tmp_path, seen_rows
):
    slm = block({"llm": 0.25}, stage="asr", **KINDS[kind])
    run_host(
        train_config(units_base, data, tmp_path / "asr", slm=slm, per_device_train_batch_size=5, **option, **epochs(1))
    )
    current = set(order_of_rows)
    # surprise scores candidates outside of the trainer's loss
    kept = [row for row in seen_rows if row in current]
    assert kept == (order_of_rows * 2)[: len(kept)]
    replayed = [place for place, row in enumerate(seen_rows) if row not in current]
    assert len(seen_rows) == 50
    if kind != "schedule":
        assert kept == order_of_rows
        # 10 rows among 40: one of every five
        assert [place // 5 for place in replayed] == list(range(10))
    else:
        gaps = [after - before for before, after in itertools.pairwise(replayed)]
        assert min(gaps) >= 3
        assert max(gaps) <= 9


def test_grouping_by_length_is_refused_for_rows_that_change_by_epoch(units_base, data, run_host, tmp_path):
    slm = block({"llm": 0.25}, stage="asr", resample="epoch")
    config = train_config(units_base, data, tmp_path / "x", slm=slm, train_sampling_strategy="group_by_length")
    with pytest.raises(ConfigError, match=r"resample: epoch changes the rows each epoch.*Use resample: once"):
        run_host(config)
    slm = block({"llm": 0.25}, stage="asr")
    run_host(train_config(units_base, data, tmp_path / "once", slm=slm, train_sampling_strategy="group_by_length"))


# --- rows that are tokenised ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"resample": "epoch"}, {"schedule": KINDS["schedule"]["schedule"]}])
def test_only_drawn_rows_are_tokenised_and_they_are_the_same_rows(
    options, units_base, data, run_host, tmp_path, slm_log, seen_rows
):
    slm = block({"asr": 0.5}, stage="llm", **options)
    config = train_config(units_base, data, tmp_path / "planned", stage="llm", slm=slm, max_samples=4, **epochs(2))
    run_host(config)
    # 2 rows, in each of two epochs and one more if they change, of the 40 there are
    n_rows = 6 if options == {"resample": "epoch"} else 2
    assert f"asr (drawn rows): {n_rows} of {n_rows} rows" in slm_log()
    assert "asr 2 of 40" in slm_log()
    planned = list(seen_rows)
    seen_rows.clear()
    # a saved tokenised data set holds the whole source
    run_host({**config, "output_dir": str(tmp_path / "whole"), "tokenized_path": str(tmp_path / "tokens")})
    assert seen_rows == planned
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "planned"))


def test_a_drawn_row_that_does_not_fit_makes_the_whole_source_be_tokenised(
    units_base, data, run_host, tmp_path, slm_log, seen_rows
):
    folder = write_data(tmp_path / "data")
    rows = [{"input": f"{number}", "output": "the red cat " * (60 if number % 2 else 1)} for number in range(10)]
    (folder / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    slm = block({"llm": 0.1}, stage="asr")
    run_host(train_config(units_base, folder, tmp_path / "x", slm=slm, cutoff_len=128, **epochs(1)))
    assert "drawn rows of llm do not fit, so all of its rows are tokenised" in slm_log()
    assert "llm 4 of 5 (once)" in slm_log()
    assert len(seen_rows) == len(set(seen_rows)) == 44


def test_packed_sequences_are_not_called_rows(units_base, data, run_host, tmp_path, slm_log):
    slm = block({"llm": 1.0}, stage="asr")
    run_host(train_config(units_base, data, tmp_path / "asr", slm=slm, packing=True))
    assert "packed sequences of the current stage + llm" in slm_log()
    assert card.read(tmp_path / "asr")["replay_counts"] == "packed sequences"


# --- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("loss", ["use_asft_loss", "use_dft_loss", "use_eaft_loss"])
def test_the_anchor_is_added_to_every_loss_of_the_host(loss, kind, units_base, data, run_host, tmp_path):
    changes = {loss: True, "finetuning_type": kind}
    if loss == "use_asft_loss" and kind == "lora":
        changes["ref_model"] = str(units_base)
    run_host(train_config(units_base, data, tmp_path / "x", stage="tts", slm=anchored(), **changes) | {"stage": "sft"})
    first, *further = terms(tmp_path / "x")
    assert first == pytest.approx(0, abs=1e-9)
    assert min(further) > 0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "use_asft_loss: needs ref_model with finetuning_type: lora.*LLaMA-Factory fails in the same way"),
        ({"finetuning_type": "full", "do_eval": True, "eval_dataset": "tts"}, "use_asft_loss: gives no outputs"),
    ],
)
def test_a_loss_that_the_host_itself_cannot_compute_is_refused(changes, text, units_base, data, run_host, tmp_path):
    with pytest.raises(ConfigError, match=text):
        run_host(train_config(units_base, data, tmp_path / "x", use_asft_loss=True, **changes))


# --- initialisations that change the base --------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"pissa_iter": -1}, {"bf16": True}])
def test_under_pissa_the_base_is_the_original_model(changes, units_base, data, run_host, tmp_path):
    slm = anchored(teacher="base")
    config = train_config(units_base, data, tmp_path / "x", stage="tts", slm=slm, pissa_init=True, **changes)
    run_host(config | {"stage": "sft"})
    first, *further = terms(tmp_path / "x")
    assert first == pytest.approx(0, abs=1e-9)
    assert min(further) > 0


@pytest.mark.parametrize("init", ["pissa_niter_16", "olora", "OLoRA", "loftq", "corda"])
def test_an_adapter_whose_start_was_taken_from_the_base_is_refused(init, units_base, data, run_host, tmp_path):
    (tmp_path / "old").mkdir()
    saved = {"peft_type": "LORA", "init_lora_weights": init}
    (tmp_path / "old" / "adapter_config.json").write_text(json.dumps(saved))
    slm = anchored(teacher="base")
    config = train_config(units_base, data, tmp_path / "x", stage="tts", slm=slm) | {"stage": "sft"}
    with pytest.raises(ConfigError, match=f"init_lora_weights: {init}.*Use teacher: stage_start"):
        run_host({**config, "adapter_name_or_path": str(tmp_path / "old")})


# --- precisions ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_bases(llm, run_host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    for kind in ("bfloat16", "float16"):
        run_host(export_config(llm, folder / kind, infer_dtype=kind))
    return folder


MODULES, ROWS = ({"stage": "asr", "units": {"count": UNITS}, "train_units": kind} for kind in ("modules", "rows"))


@pytest.mark.parametrize(
    ("dtype", "slm", "changes", "text"),
    [
        ("bfloat16", MODULES, {"bf16": False}, "bf16: the base .* is bfloat16, and with bf16: false"),
        ("bfloat16", MODULES, {"fp16": True}, "with fp16: true on a CPU"),
        ("float16", MODULES, {}, "is float16"),
        ("bfloat16", MODULES, {"finetuning_type": "freeze"}, "is bfloat16"),
        ("float16", {"stage": "asr"}, {"finetuning_type": "freeze"}, "is float16"),
        ("bfloat16", {"stage": "asr"}, {"additional_target": "embed_tokens,lm_head"}, "is bfloat16"),
        ("float16", ROWS, {"bf16": True}, "unit rows cannot be trained alone"),
    ],
)
def test_a_half_base_that_cannot_be_trained_is_refused_with_two_ways_out(
    dtype, slm, changes, text, half_bases, data, tmp_path
):
    from llamafactory.hparams import get_train_args

    config = train_config(half_bases / dtype, data, tmp_path / "x", slm=slm, **changes)
    with pytest.raises(ConfigError, match=text) as caught:
        get_train_args(config)
    assert "or export the base again with infer_dtype: float32" in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "slm", "changes"),
    [
        ("bfloat16", MODULES, {"bf16": True}),
        ("float16", MODULES, {"bf16": True}),
        ("bfloat16", ROWS, {}),
        ("float16", ROWS, {}),
        ("bfloat16", MODULES, {"finetuning_type": "full"}),
        ("bfloat16", {"stage": "asr"}, {}),
    ],
)
def test_every_other_half_base_trains(dtype, slm, changes, half_bases, data, run_host, tmp_path):
    run_host(train_config(half_bases / dtype, data, tmp_path / "x", slm=slm, **{"max_steps": 1, **changes}))
    assert (tmp_path / "x" / "trainer_state.json").is_file()


def test_the_type_of_the_weights_counts_if_the_configuration_names_none(half_bases, tmp_path):
    from slm_plugin.host.compatibility import base_dtype

    for folder in ("named", "nested", "unnamed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").symlink_to(half_bases / "float16" / "model.safetensors")
    for folder, config in (
        ("named", {"torch_dtype": "bfloat16"}),
        ("nested", {"text_config": {"dtype": "bfloat16"}}),
        ("unnamed", {}),
    ):
        (tmp_path / folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    found = [
        base_dtype(types.SimpleNamespace(model_name_or_path=tmp_path / name, cache_dir=None, model_revision="main"))
        for name in ("named", "nested", "unnamed", "nowhere")
    ]
    assert found == ["bfloat16", "bfloat16", "float16", None]


# --- text with units -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "units", "others"),
    [
        ({}, True, False),
        ({"skip_special_tokens": True}, False, False),
        ({"skip_special_tokens": False}, True, True),
        ({"slm": None}, False, False),
    ],
    ids=["default", "hidden", "everything", "without a block"],
)
def test_chat_shows_units_unless_told_otherwise(changes, units, others, units_base):
    from llamafactory.chat import ChatModel

    config = {"model_name_or_path": str(units_base), "template": "llama3", "infer_dtype": "float32"}
    config |= {"slm": {"units": {"count": UNITS}}, **changes}
    model = ChatModel({key: value for key, value in config.items() if value is not None})
    tokenizer = model.engine.tokenizer
    ids = tokenizer.encode("hello<|3|><|7|> world<|eot_id|>", add_special_tokens=False)
    # how the engine decodes answers
    skipped = model.engine.generating_args["skip_special_tokens"]
    for text in (tokenizer.decode(ids, skip_special_tokens=skipped), tokenizer.batch_decode([ids], skipped)[0]):
        assert (text_to_units(text) == [3, 7]) is units
        assert ("<|eot_id|>" in text) is others
        assert text.startswith("hello")
        assert " world" in text


class _Rouge:
    def get_scores(self, one, other):
        return [{name: {"f": float(one == other)} for name in ("rouge-1", "rouge-2", "rouge-l")}]


@pytest.mark.parametrize("stated", [None, True])
def test_predictions_and_labels_hold_units_and_scores_say_that_they_do_not(
    stated, units_base, data, run_host, tmp_path, slm_log, monkeypatch
):
    # the packages that score are not installed with the tests
    from llamafactory.hparams import parser
    from llamafactory.train.sft import metric

    monkeypatch.setattr(parser, "check_version", lambda *args, **kwargs: None)
    monkeypatch.setattr(metric, "jieba", types.SimpleNamespace(cut=str.split), raising=False)
    monkeypatch.setattr(metric, "Rouge", _Rouge, raising=False)
    monkeypatch.setattr(metric, "sentence_bleu", lambda *args, **kwargs: 0.5, raising=False)
    monkeypatch.setattr(metric, "SmoothingFunction", lambda: types.SimpleNamespace(method3=None), raising=False)
    config = train_config(units_base, data, tmp_path / "x", stage="tts", slm={"units": {"count": UNITS}})
    config |= {"stage": "sft", "do_train": False, "do_predict": True, "predict_with_generate": True}
    config |= {"eval_dataset": "tts", "max_samples": 4, "max_new_tokens": 8, "per_device_eval_batch_size": 4}
    if stated is not None:
        config["skip_special_tokens"] = stated
    run_host(config)
    rows = [json.loads(line) for line in (tmp_path / "x" / "generated_predictions.jsonl").read_text().splitlines()]
    n_label_units = sum(len(text_to_units(row["label"])) for row in rows)
    assert "<|eot_id|>" not in "".join(row["label"] + row["predict"] for row in rows)
    results = json.loads((tmp_path / "x" / "predict_results.json").read_text())
    assert results["predict_bleu-4"] == 50.0
    if stated:
        assert n_label_units == 0
        assert results["predict_units_not_scored"] > 0
    else:
        n_units = n_label_units + sum(len(text_to_units(row["predict"])) for row in rows)
        assert n_label_units > 20
        assert results["predict_units_not_scored"] == n_units
    assert "compare words only and leave out" in slm_log()
