"""Rows of data sets as the host's training receives them: long, misspelt, in every form, and from saved folders."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from host.world import UNITS, train_config
from slm_plugin.errors import DataError, VocabularyError
from slm_plugin.vocabulary import text_to_units, units_to_text

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

WORDS = ("the", "cat", "hello", "world", "red", "blue")
PROMPT = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nPlease repeat the following words: "
CHAT = {"instruction": "hello", "input": "", "output": "the red cat " * 30}
STREAMED = {"streaming": True, "dataloader_num_workers": 1}
HEADER = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"


def spoken(n_words: int, per_word: int = 4) -> dict[str, Any]:
    """Return a row whose interleaved form is that of its units and text."""
    words = [WORDS[number % len(WORDS)] for number in range(n_words)]
    units = [[(number * per_word + k) % UNITS for k in range(per_word)] for number in range(n_words)]
    pairs = zip(words, units, strict=True)
    return {
        "discrete_unit": [unit for run in units for unit in run],
        "transcription": " ".join(words),
        "interleaf": " ".join(word + units_to_text(run) for word, run in pairs),
    }


@pytest.fixture
def rows_of(units_base: Path, tmp_path: Path, run_host: Any) -> Callable[..., Any]:
    """Return what the host trains on: write rows as a data set, parse a configuration and load the data set."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer
    from llamafactory.train.sft import workflow

    def load(rows: list[dict[str, Any]], stage: str = "asr", long_samples: str | None = None, **changes: Any) -> Any:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        entry = {"file_name": "rows.jsonl", "formatting": f"slm_{stage}", **changes.pop("entry", {})}
        info = {"mine": entry, "held_out": entry, "more": entry, "chats": {"file_name": "chats.json"}}
        (folder / "chats.json").write_text(json.dumps([CHAT]), encoding="utf-8")
        (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
        slm = {"stage": stage, "units": {"count": UNITS}}
        if long_samples is not None:
            slm["long_samples"] = long_samples
        config = train_config(units_base, folder, tmp_path / "out", stage, dataset="mine", slm=slm)
        generates = changes.pop("predict_with_generate", False)
        model_args, data_args, training_args, *_ = get_train_args(copy.deepcopy({**config, **changes}))
        # only behind the parser, which asks for packages that score generated text
        training_args.predict_with_generate = generates
        module = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
        found = workflow.get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
        found["tokenizer"] = module["tokenizer"]
        return found

    return load


def texts(found: Any, key: str = "train_dataset") -> list[str]:
    return [found["tokenizer"].decode(row["input_ids"]) for row in found[key]]


def answers(found: Any) -> list[str]:
    labels = [[label for label in row["labels"] if label != -100] for row in found["train_dataset"]]
    return [found["tokenizer"].decode(row) for row in labels]


def test_a_row_longer_than_the_limit_is_dropped_by_default_and_counted(rows_of, slm_log):
    found = rows_of([spoken(3), spoken(40), spoken(4)], cutoff_len=100)
    assert len(found["train_dataset"]) == 2
    assert "mine: 2 of 3 rows, 1 longer than cutoff_len 100 and dropped" in slm_log()
    assert "warning: 33% of the rows of mine are longer than cutoff_len 100; the longest has" in slm_log()


def test_a_row_of_exactly_the_limit_is_kept_whole(rows_of):
    row = spoken(5)
    length = len(rows_of([row])["train_dataset"][0]["input_ids"])
    for rule in ("drop", "cut"):
        kept = rows_of([row], long_samples=rule, cutoff_len=length)["train_dataset"][0]
        assert len(kept["input_ids"]) == length
        assert kept["labels"][-1] != -100


def test_a_cut_prompt_keeps_its_header_and_loses_the_words_of_the_units_that_are_cut(rows_of, slm_log):
    row = spoken(40)
    found = rows_of([row], long_samples="cut", cutoff_len=100)
    (text,) = texts(found)
    (answer,) = answers(found)
    assert len(found["train_dataset"][0]["input_ids"]) <= 100
    units = text_to_units(text)
    n_words = len(units) // 4
    assert 5 < n_words < 40
    assert units == row["discrete_unit"][: 4 * n_words]
    assert answer == " ".join(row["transcription"].split()[:n_words]) + "<|eot_id|>"
    assert text == PROMPT + units_to_text(units) + HEADER + answer
    assert "mine: 1 of 1 rows, 1 longer than cutoff_len 100 and cut at the end of a word" in slm_log()


def test_a_prompt_without_the_times_of_its_words_is_dropped_rather_than_cut(rows_of, slm_log):
    long = spoken(40)
    other = {**long, "interleaf": spoken(40, per_word=3)["interleaf"]}
    del long["interleaf"]
    found = rows_of([long, other, spoken(3)], long_samples="cut", cutoff_len=100)
    assert len(found["train_dataset"]) == 1
    assert "2 longer than cutoff_len 100 and dropped because they cannot be cut" in slm_log()


def test_an_interleaved_answer_is_cut_behind_the_units_of_a_word_and_does_not_end(rows_of):
    row = spoken(20)
    whole = texts(rows_of([row], "tts"))[0]
    n_tokens = len(rows_of([row], "tts")["train_dataset"][0]["input_ids"])
    for limit in range(n_tokens - 12, n_tokens):
        (text,) = texts(rows_of([row], "tts", long_samples="cut", cutoff_len=limit))
        assert whole.startswith(text)
        assert text.endswith("|>")
        assert not text.endswith("<|eot_id|>")
        assert len(text_to_units(text)) % 4 == 0


@pytest.mark.parametrize("rule", ["drop", "cut"])
@pytest.mark.parametrize("changes", [{}, {"packing": True}, STREAMED], ids=["plain", "packed", "streamed"])
def test_a_limit_that_no_row_fits_is_refused(rule, changes, rows_of):
    with pytest.raises(DataError, match=r"data set 'mine' has no .*row that fits cutoff_len 2"):
        rows_of([spoken(3)] * 8, long_samples=rule, cutoff_len=2, **changes)


def test_packed_rows_follow_the_rule_before_they_are_packed(rows_of, slm_log):
    found = rows_of([spoken(3), spoken(40), spoken(4), spoken(3)], packing=True, cutoff_len=100)
    assert "mine: 3 of 4 rows, 1 longer than cutoff_len 100 less 1 for packing and dropped" in slm_log()
    assert f"mine: 3 rows packed into {len(found['train_dataset'])} sequences" in slm_log()
    packed = "".join(texts(found))
    assert packed.count(HEADER) == packed.count(PROMPT) == 3


def test_streamed_rows_follow_the_rule(rows_of):
    found = rows_of([spoken(3), spoken(40), spoken(4)], cutoff_len=100, **STREAMED)
    assert sorted(len(text_to_units(text)) for text in texts(found)) == [12, 16]


def test_evaluation_rows_follow_the_rule_under_their_own_name(rows_of, slm_log):
    found = rows_of([spoken(3), spoken(40), spoken(4)], cutoff_len=100, eval_dataset="held_out")
    assert len(found["eval_dataset"]) == 2
    assert "held_out: 2 of 3 rows, 1 longer than cutoff_len 100 and dropped" in slm_log()


def test_each_evaluation_set_is_reported_under_its_own_name(rows_of, slm_log):
    rows_of([spoken(3)], eval_dataset="held_out,more", eval_on_each_dataset=True)
    assert slm_log() == "mine: 1 of 1 rows\nheld_out: 1 of 1 rows\nmore: 1 of 1 rows"


def test_rows_split_off_for_evaluation_are_told_apart(rows_of, slm_log):
    rows_of([spoken(3)] * 4, val_size=0.5)
    assert slm_log() == "mine: 2 of 2 rows\nmine (val_size): 2 of 2 rows"


@pytest.mark.parametrize("prompts", [False, True], ids=["answers", "with prompts"])
def test_rows_of_other_formats_are_cut_in_their_answer(prompts, rows_of):
    found = rows_of([spoken(3)], dataset="mine,chats", long_samples="cut", cutoff_len=50, train_on_prompt=prompts)
    _, text = texts(found)
    assert text.endswith(("the", " red", " cat"))
    assert len(found["train_dataset"][1]["input_ids"]) > 40
    assert HEADER + CHAT["output"][:30] in text


def test_a_generated_answer_needs_the_whole_prompt_only(rows_of):
    row = spoken(8)
    found = rows_of([row, spoken(40)], cutoff_len=70, eval_dataset="held_out", predict_with_generate=True)
    (kept,) = found["eval_dataset"]
    text = found["tokenizer"].decode(kept["input_ids"])
    assert text == PROMPT + units_to_text(row["discrete_unit"]) + HEADER
    assert found["tokenizer"].decode(kept["labels"]) == row["transcription"] + "<|eot_id|>"


def test_control_tokens_that_a_text_spells_stay_text(rows_of):
    row = {**spoken(3), "transcription": "say <|5|> and <|eot_id|> now", "instruction": "<|7|> <|eot_id|> say: "}
    found = rows_of([row])
    ids = found["train_dataset"][0]["input_ids"]
    special = {found["tokenizer"].convert_tokens_to_ids(text) for text in ("<|5|>", "<|7|>", "<|eot_id|>")}
    assert [number in special for number in ids].count(True) == 2 + row["discrete_unit"].count(5) + row[
        "discrete_unit"
    ].count(7)
    assert answers(found)[0].replace("\u200b", "") == row["transcription"] + "<|eot_id|>"


@pytest.mark.parametrize(
    ("stage", "change", "error", "message"),
    [
        ("asr", {"discrete_unit": [3, UNITS]}, VocabularyError, f"unit {UNITS} at position 1"),
        ("asr", {"discrete_unit": "1 2 x"}, DataError, "must hold whole numbers or unit tokens, got '1 2 x'"),
        ("tts", {"interleaf": "hello<|01|>"}, DataError, r"has '<\|01\|>' among its words"),
        ("tts", {"interleaf": "hello<|1|> red<|\u0662|>"}, DataError, "among its words"),
    ],
)
def test_an_error_names_the_data_set_and_the_row(stage, change, error, message, rows_of):
    rows = [spoken(3), spoken(3), {**spoken(3), **change}]
    with pytest.raises(error, match=r"^data set 'mine', row 3: .*" + message):
        rows_of([{**row, "discrete_unit": str(row["discrete_unit"])} for row in rows], stage)


@pytest.mark.parametrize(("sampled", "workers"), [(2, None), (None, 2)], ids=["num_samples", "two processes"])
def test_an_error_names_the_place_in_the_file_whoever_reads_the_row(sampled, workers, rows_of, monkeypatch):
    rows = [spoken(3), spoken(3), spoken(3), {**spoken(3), "discrete_unit": [UNITS]}]
    # the host draws num_samples from numpy's generator; with this seed, the fourth row first
    monkeypatch.setattr(np.random, "permutation", np.random.RandomState(1).permutation)
    with pytest.raises(VocabularyError, match=r"^data set 'mine', row 4: "):
        rows_of(rows, entry={"num_samples": sampled} if sampled else {}, preprocessing_num_workers=workers)


@pytest.fixture
def saved(rows_of, tmp_path):
    """Tokenise three rows to a folder, and return how to load it again and what is in it."""
    folder = tmp_path / "tokens"
    rows = [spoken(3), spoken(4), spoken(5)]
    rows_of(rows, tokenized_path=str(folder))
    return rows, str(folder)


def test_a_folder_that_a_run_wrote_serves_the_next_run(saved, rows_of, tmp_path):
    rows, folder = saved
    signature = tmp_path / "tokens" / "slm_vocabulary.json"
    before = signature.read_bytes()
    found = rows_of(rows, tokenized_path=folder)
    assert len(text_to_units(texts(found)[2])) == 20
    assert signature.read_bytes() == before


def test_a_folder_of_a_run_without_the_block_is_refused_and_not_signed(rows_of, tmp_path):
    rows, folder = [spoken(3)], str(tmp_path / "tokens")
    signature = tmp_path / "tokens" / "slm_vocabulary.json"
    rows_of(rows, tokenized_path=folder, slm=None)
    for _ in range(2):
        with pytest.raises(DataError, match=r"tokens holds rows that no run with this slm block has signed"):
            rows_of(rows, tokenized_path=folder)
        assert not signature.exists()
    # what an earlier release left may have been signed over rows of any origin
    signature.write_text(json.dumps({"tokens": 562, "first_unit_id": 512, "units": UNITS}))
    with pytest.raises(DataError, match="of an earlier release"):
        rows_of(rows, tokenized_path=folder)


def test_other_data_behind_a_saved_folder_are_refused(saved, rows_of):
    rows, folder = saved
    with pytest.raises(DataError, match=r"tokenised before the file rows.jsonl of data set 'mine' changed"):
        rows_of(rows[:2], tokenized_path=folder)
    same_size = [{**rows[0], "transcription": rows[0]["transcription"][::-1]}, *rows[1:]]
    with pytest.raises(DataError, match=r"tokenised before the file rows.jsonl of data set 'mine' changed"):
        rows_of(same_size, tokenized_path=folder)
    with pytest.raises(DataError, match=r"the entry of 'mine' in dataset_info.json changed"):
        rows_of(rows, "tts", tokenized_path=folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cutoff_len": 128}, "cutoff_len changed from 256 to 128"),
        ({"long_samples": "cut"}, "slm.long_samples changed from drop to cut"),
        ({"template": "llama3", "dataset": "mine,held_out"}, "data sets changed from mine to mine, held_out"),
        ({"preserve_thinking": True}, "preserve_thinking changed from False to True"),
        ({"mix_strategy": "interleave_under"}, "mix_strategy changed from concat to interleave_under"),
    ],
)
def test_other_options_than_those_of_a_saved_folder_are_refused(changes, message, saved, rows_of):
    rows, folder = saved
    with pytest.raises(DataError, match=message):
        rows_of(rows, tokenized_path=folder, **changes)


@pytest.mark.parametrize("block", [{"stage": "asr"}, None], ids=["a block without units", "no block"])
def test_units_are_never_trained_as_text_by_a_tokenizer_without_them(block, llm, tmp_path, run_host):
    folder = tmp_path / "data"
    folder.mkdir()
    row = {"discrete_unit": [1, 2], "transcription": "hello"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    info = {"mine": {"file_name": "rows.jsonl", "formatting": "slm_asr"}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    config = train_config(llm, folder, tmp_path / "out", "asr", dataset="mine", slm=block)
    config = {key: value for key, value in config.items() if value is not None}
    with pytest.raises(
        DataError, match=r"data set 'mine', row 1: holds units, but the tokenizer has none.*slm\.units"
    ):
        run_host(config)


def test_evaluation_rows_saved_for_generation_are_not_used_for_a_loss(rows_of, tmp_path):
    rows, folder = [spoken(3), spoken(4)], str(tmp_path / "tokens")
    rows_of(rows, tokenized_path=folder, eval_dataset="held_out", predict_with_generate=True)
    with pytest.raises(DataError, match="predict_with_generate changed from True to False"):
        rows_of(rows, tokenized_path=folder, eval_dataset="held_out")


def test_rows_saved_with_the_own_chat_template_of_another_model_are_refused(rows_of, llm, tmp_path):
    rows, other, folder = [spoken(3), spoken(4)], tmp_path / "other", str(tmp_path / "tokens")
    rows_of(rows, tokenized_path=folder, template=None, model_name_or_path=str(llm))
    shutil.copytree(llm, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = tokenizer.chat_template.replace("{{ bos_token }}", "{{ bos_token + 'hello ' }}")
    tokenizer.save_pretrained(other)
    with pytest.raises(DataError, match="tokenised before prompts changed from "):
        rows_of(rows, tokenized_path=folder, template=None, model_name_or_path=str(other))
