"""Rows of the published form become exactly the chats and label masks that the paper describes.

The expectation is written by hand from the paper's description, not from our stages: the text of
every turn is spelled out, and the mask is found by position in it.
"""

from __future__ import annotations

import copy
import json

import pytest

from host.world import UNITS, train_config, write_data

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

IGNORED = -100
HEAD = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
MIDDLE = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
TAIL = "<|eot_id|>"

ROW = {
    "instruction": "Please repeat the following words: ",
    "discrete_unit": [3, 17, 3],
    "transcription": "hello red cat",
    "interleaf": "hello<|3|><|17|> red<|3|> cat<|49|>",
    "input_unit": [5, 6],
    "input_pseudo": "one two",
    "output_pseudo": "the dog",
    "output_7306_interleaf": "the<|1|> dog<|2|><|4|>",
}
LLM_ROW = {"input": "hello world", "output": "the blue dog"}

EXPECTED = {
    "llm": (LLM_ROW, "hello world", "the blue dog"),
    "asr": (ROW, "Please repeat the following words: <|3|><|17|><|3|>", "hello red cat"),
    "tts": (
        ROW,
        "Please speak out loud the following words: hello red cat",
        "hello<|3|><|17|> red<|3|> cat<|49|>",
    ),
    "sqa": (ROW, "<|5|><|6|>", "one two\n\nthe dog\n\nthe<|1|> dog<|2|><|4|>"),
}


@pytest.fixture
def tokenised(units_base, tmp_path):
    """Tokenise one row through the host and return its ids and labels with the tokenizer."""

    def run(stage, row, **slm):
        from llamafactory.data import get_template_and_fix_tokenizer
        from llamafactory.hparams import get_train_args
        from llamafactory.model import load_tokenizer
        from llamafactory.train.sft import workflow

        data = write_data(tmp_path / "data")
        name = json.loads((data / "dataset_info.json").read_text())[stage]["file_name"]
        (data / name).write_text(json.dumps(row) + "\n")
        config = train_config(units_base, data, tmp_path / "out", stage=stage)
        config["slm"] = {**config["slm"], **slm}
        arguments = get_train_args(copy.deepcopy(config))
        module = load_tokenizer(arguments[0])
        template = get_template_and_fix_tokenizer(module["tokenizer"], arguments[1])
        found = workflow.get_dataset(template, *arguments[:3], stage="sft", **module)["train_dataset"][0]
        return found["input_ids"], found["labels"], module["tokenizer"]

    return run


@pytest.mark.parametrize("stage", sorted(EXPECTED))
def test_a_published_row_becomes_the_paper_s_chat_with_loss_on_the_answer_only(stage, tokenised):
    row, user, assistant = EXPECTED[stage]
    ids, labels, tokenizer = tokenised(stage, row)
    prompt = tokenizer(HEAD + user + MIDDLE, add_special_tokens=False)["input_ids"]
    answer = tokenizer(assistant + TAIL, add_special_tokens=False)["input_ids"]
    assert ids == prompt + answer
    assert labels == [IGNORED] * len(prompt) + answer


def test_every_unit_is_one_token_with_the_id_of_unit_zero_plus_its_number(tokenised):
    ids, _, tokenizer = tokenised("sqa", ROW)
    zero = tokenizer.convert_tokens_to_ids("<|0|>")
    found = [i - zero for i in ids if zero <= i < zero + UNITS]
    # question 5 6, then the spoken answer 1 | 2 4
    assert found == [5, 6, 1, 2, 4]


@pytest.mark.parametrize(
    ("stage", "own"),
    [
        ("asr", {"instruction": ROW["instruction"], "units": [3, 17, 3], "text": "hello red cat"}),
        ("asr", {"instruction": ROW["instruction"], "units": "<|3|><|17|><|3|>", "text": "hello red cat"}),
        (
            "tts",
            {
                "text": "hello red cat",
                "words": [
                    {"word": "hello", "units": [3, 17]},
                    {"word": "red", "units": [3]},
                    {"word": "cat", "units": [49]},
                ],
            },
        ),
        (
            "sqa",
            {
                "question_units": [5, 6],
                "question_text": "one two",
                "answer_text": "the dog",
                "answer_words": [{"word": "the", "units": [1]}, {"word": "dog", "units": [2, 4]}],
            },
        ),
    ],
    ids=["asr-ints", "asr-unit-strings", "tts-word-units", "sqa-word-units"],
)
def test_our_own_columns_give_the_same_tokens_as_the_published_ones(stage, own, tokenised):
    assert tokenised(stage, own)[:2] == tokenised(stage, EXPECTED[stage][0])[:2]
