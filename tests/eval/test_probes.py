"""Probes of the tiny world, with a model that answers from a book."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from eval.book import Book, score, write
from slm_plugin.errors import CodecError, ConfigError, DataError, PipelineError, VocabularyError
from slm_plugin.eval.evaluate import evaluate
from slm_plugin.eval.rows import read_rows
from slm_plugin.eval.spoken import split_answer
from slm_plugin.plugins import Registry
from slm_plugin.vocabulary import UnitVocabulary, units_to_text


@pytest.fixture(scope="module")
def data(root: Path) -> Path:
    return root / "examples" / "tiny" / "data"


def test_text_answers_must_match(registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path / "qa.jsonl", [{"input": str(n), "output": "Red dog"} for n in range(4)])
    book = Book(lambda prompt: {"0": "red dog", "1": " red  DOG", "2": "a red dog here", "3": "blue"}[prompt])
    exact = score(registry, "text_match", book, data=file)
    assert (exact.skill, exact.value, exact.n, exact.better) == ("column", 0.5, 4, "higher")
    assert exact.examples[3 - 1] == {"prompt": "2", "expected": "Red dog", "answer": "a red dog here"}
    assert score(registry, "text_match", book, data=file, match="contains").value == 0.75
    assert score(registry, "text_match", book, data=file, n=2, examples=0).n == 2


def test_containing_means_whole_words(registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path / "qa.jsonl", [{"question": "x", "answer": "red"}])
    options = {"data": file, "prompt": "question", "answer": "answer", "match": "contains"}
    assert score(registry, "text_match", Book(lambda _: "a redder dog"), **options).value == 0.0


def test_text_is_scored_for_a_model_without_units_and_speech_is_not(registry: Registry, data: Path) -> None:
    file = str(data / "eval_text_qa.jsonl")
    skills = [
        ("text", "text_match", {"data": file, "n": 3}),
        ("heard", "speech_recognition", {"data": str(data / "eval_speech.jsonl")}),
    ]
    assert list(evaluate(Book(lambda _: "red", vocabulary=None), skills, registry)) == ["text"]


def test_transcripts_are_asked_for_as_in_training(registry: Registry, data: Path) -> None:
    rows = read_rows(data / "eval_speech.jsonl", 10)
    right = {row["instruction"] + units_to_text(row["discrete_unit"]): row["transcription"] for row in rows}
    book = Book(lambda prompt: right[prompt] + "<|3|>")
    perfect = score(registry, "speech_recognition", book, data=str(data / "eval_speech.jsonl"), n=10)
    assert (perfect.value, perfect.better) == (0.0, "lower")
    assert perfect.n == sum(len(row["transcription"].split()) for row in rows)
    silent = score(registry, "speech_recognition", Book(lambda _: ""), data=str(data / "eval_speech.jsonl"), n=10)
    assert silent.value == 1.0


def test_speech_is_judged_by_what_the_recogniser_hears(registry: Registry, data: Path) -> None:
    options = {
        "data": str(data / "eval_speech.jsonl"),
        "templates": str(data / "templates.jsonl"),
        "codec": "tiny",
        "n": 40,
    }
    rows = read_rows(data / "eval_speech.jsonl", 40)
    spoken = {row["transcription"]: row["interleaf"] for row in rows}
    book = Book(lambda prompt: spoken[prompt.split(" : ")[1]])
    real = score(registry, "speech_synthesis", book, **options)
    # a model that speaks exactly as the recordings do is judged at the ceiling
    assert real.value == real.notes["recogniser_wer"] <= 0.05
    assert all("speak out loud" in prompt and "repeat" not in prompt for prompt in book.asked)
    assert score(registry, "speech_synthesis", Book(lambda _: "only words"), **options).value == 1.0


def test_spoken_questions_are_scored_by_section(registry: Registry, data: Path) -> None:
    file = str(data / "eval_sqa_heard.jsonl")
    rows = read_rows(file, 20)
    book = {units_to_text(row["input_unit"]): row for row in rows}
    right = Book(lambda prompt: f"{book[prompt]['input_pseudo']}\n\n{book[prompt]['output_pseudo']}\n\nx<|1|>")
    perfect = score(registry, "spoken_qa", right, data=file, n=20)
    assert (perfect.value, perfect.notes["question_wer"]) == (1.0, 0.0)
    # the right word in the wrong section does not count
    wrong = Book(lambda prompt: f"{book[prompt]['output_pseudo']}\n\nnothing\n\n{book[prompt]['output_pseudo']}")
    assert score(registry, "spoken_qa", wrong, data=file, n=20).value == 0.0


def test_spoken_answers_are_judged_by_ear(registry: Registry, data: Path) -> None:
    file = str(data / "eval_sqa_heard.jsonl")
    templates = {row["word"]: row["units"] for row in read_rows(data / "templates.jsonl")}
    book = {units_to_text(row["input_unit"]): row["output_pseudo"] for row in read_rows(file, 20)}
    judge = {"templates": str(data / "templates.jsonl"), "codec": "tiny", "speech": True}

    def aloud(prompt: str) -> str:
        return f"x\n\nwrong\n\n{book[prompt]}{units_to_text(templates[book[prompt]])}"

    assert score(registry, "spoken_qa", Book(aloud), data=file, n=20, **judge).value == 1.0
    mute = Book(lambda prompt: f"x\n\n{book[prompt]}\n\n{book[prompt]}")
    assert score(registry, "spoken_qa", mute, data=file, n=20, **judge).value == 0.0


@pytest.mark.parametrize(
    ("answer", "sections"),
    [
        ("a\n\nb\n\nc<|1|>", ["a", "b", "c<|1|>"]),
        ("a\n\nb", ["a", "b", ""]),
        ("", ["", "", ""]),
        ("a\n\nb\n\nc\n\nd", ["a", "b", "c\n\nd"]),
    ],
)
def test_missing_sections_are_empty(answer: str, sections: list[str]) -> None:
    assert split_answer(answer) == sections


def test_speech_without_a_judge_is_refused(registry: Registry, data: Path) -> None:
    with pytest.raises(ConfigError, match="judged with a codec and with either templates or whisper"):
        score(registry, "spoken_qa", Book(str), data=str(data / "eval_sqa_heard.jsonl"), speech=True)


def test_unknown_options_are_refused_with_the_nearest(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"column\.options\.dat: unknown key\. Did you mean 'data'\?"):
        score(registry, "text_match", Book(str), dat="x")


def test_a_judge_of_another_vocabulary_or_codec_is_refused(registry: Registry, data: Path) -> None:
    options = {"data": str(data / "eval_speech.jsonl"), "templates": str(data / "templates.jsonl")}
    with pytest.raises(VocabularyError, match="the model has 50 units, the codec 'tiny' has 100"):
        score(registry, "speech_synthesis", Book(str, UnitVocabulary(0, 50)), codec="tiny", **options)
    with pytest.raises(CodecError, match="no codec is called 'tinny'"):
        score(registry, "speech_synthesis", Book(str), codec="tinny", **options)


SPOKEN = {"transcription": "anna sings", "interleaf": "anna<|1|> sings<|2|>"}


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        ("anna<|1|><|2|> sings<|3|>", []),
        ("anna sings<|1|>", []),
        ("anna sings", ["no_units", "words_without_units"]),
        ("<|1|>anna<|2|> sings<|3|>", ["units_before_words"]),
        ("anna<|1|> sings", ["words_without_units"]),
        ("anna<|1|> sang<|2|>", ["other_words"]),
        ("anna<|1|> sings" + "<|2|>" * 21, ["runaway_units"]),
        ("", ["no_units", "other_words"]),
    ],
)
def test_the_form_of_an_interleaved_answer(registry: Registry, tmp_path: Path, answer: str, faults: list[str]) -> None:
    file = write(tmp_path / "tts.jsonl", [SPOKEN])
    found = score(registry, "interleave_form", Book(lambda prompt: answer), data=file)
    assert found.value == (0.0 if faults else 1.0)
    assert [name for name, part in found.notes.items() if part] == faults


class Told(Book):
    """A generator to which the n-th token of an answer has probability 1 / (n + 2)."""

    def log_probabilities(self, chats: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[float]]]:
        # three text tokens and two units in each answer
        return [([5, 6, 7, 116, 120], [math.log(1 / (n + 2)) for n in range(5)]) for _ in chats]


@pytest.mark.parametrize(
    ("modality", "expected", "n"),
    # text 2 3 4, units 5 6: geometric means 24^(1/3), 30^(1/2), 720^(1/5)
    [("text", 24 ** (1 / 3), 6), ("units", 30**0.5, 4), ("all", 720**0.2, 10)],
)
def test_perplexity_is_the_geometric_mean_of_the_inverse_probabilities(
    registry: Registry, tmp_path: Path, modality: str, expected: float, n: int
) -> None:
    file = write(tmp_path / "qa.jsonl", [{"input": "a", "output": "b"}] * 2)
    found = score(registry, "perplexity", Told(lambda prompt: ""), data=file, modality=modality)
    assert found.value == pytest.approx(expected)
    assert (found.n, found.better, found.standard_error) == (n, "lower", pytest.approx(0.0))
    assert found.notes["nats_per_token"] == pytest.approx(math.log(expected))


def test_perplexity_needs_probabilities_and_tokens_of_the_kind(registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path / "qa.jsonl", [{"input": "a", "output": "b"}])
    with pytest.raises(PipelineError, match="tells probabilities"):
        score(registry, "perplexity", Book(lambda prompt: ""), data=file)
    with pytest.raises(PipelineError, match="no units token"):
        score(registry, "perplexity", Told(lambda prompt: "", None), data=file, modality="units")


def test_errors_may_be_counted_in_characters(registry: Registry, tmp_path: Path) -> None:
    rows = [{"discrete_unit": [1], "transcription": "Red dog."}, {"discrete_unit": [2], "transcription": "..."}]
    book = Book(lambda prompt: "red dig")
    options = {"data": write(tmp_path / "asr.jsonl", rows), "normalise": "punctuation", "errors_in": "characters"}
    found = score(registry, "speech_recognition", book, **options)
    # one of seven characters, one of two words; the second row says nothing and is not asked
    assert (found.value, found.n, dict(found.notes)) == (1 / 7, 7, {"errors_per_word": 0.5})
    assert len(book.asked) == 1


def test_units_are_compared_with_those_of_a_recording(registry: Registry, tmp_path: Path) -> None:
    rows = [{"transcription": "anna sings", "interleaf": "anna<|1|><|1|><|2|> sings<|3|>"}]
    file = write(tmp_path / "tts.jsonl", rows)
    book = Book(lambda prompt: "anna<|1|><|2|><|2|><|2|> sings<|4|>")
    # folded 1 2 3 and 1 2 4: one of three; unfolded 1 1 2 3 and 1 2 2 2 4: two other units and one too many, of four
    folded = score(registry, "unit_error", book, data=file)
    assert (folded.value, folded.n, folded.better) == (1 / 3, 3, "lower")
    assert score(registry, "unit_error", book, data=file, fold_runs=False).value == 3 / 4
    assert score(registry, "unit_error", Book(lambda _: "only words"), data=file).value == 1.0


SQA = {
    "question_units": [1, 2],
    "question_text": "What is the capital?",
    "answer_text": "The capital of the Netherlands is Amsterdam.",
    "answer_words": [{"text": "anna", "units": [3, 7]}],
}


def test_a_spoken_answer_is_scored_against_the_short_one_if_the_row_has_it(registry: Registry, tmp_path: Path) -> None:
    short = {**SQA, "answer": "Amsterdam"}
    several = {**SQA, "answer": "A'dam", "answers": ["A'dam", "Amsterdam"]}
    blank = {**SQA, "answer": " ", "answers": None}
    beside_empty = {**SQA, "answer": "Amsterdam", "answers": []}
    file = write(tmp_path / "sqa.jsonl", [short, several, blank, beside_empty])
    book = Book(lambda _: "What is the capital?\n\nIt is Amsterdam.\n\nx<|1|>")
    # the third row has the whole sentence alone, which this answer is not
    found = score(registry, "spoken_qa", book, data=file)
    assert [hit for hit, _ in found.items] == [1.0, 1.0, 0.0, 1.0]
    assert [example["expected"] for example in found.examples][:3] == ["Amsterdam", "A'dam", SQA["answer_text"]]
    assert score(registry, "spoken_qa", book, data=file, match="exact").value == 0.0
    whole = Book(lambda _: f"x\n\n{SQA['answer_text']}\n\nx<|1|>")
    assert score(registry, "spoken_qa", whole, data=file).value == 1.0


def test_spoken_answers_come_with_the_error_rate_of_the_recogniser_if_the_data_are_spoken(
    registry: Registry, data: Path, tmp_path: Path
) -> None:
    templates = {row["word"]: row["units"] for row in read_rows(data / "templates.jsonl")}
    # the recogniser understands "two" in the second recording, whose text is "seven"
    spoken = [{"word": "seven", "units": templates["seven"]}], [{"word": "x", "units": templates["two"]}]
    rows = [{**SQA, "answer_text": "seven", "answer_words": words} for words in spoken]
    judge = {"templates": str(data / "templates.jsonl"), "codec": "tiny", "speech": True}
    found = score(registry, "spoken_qa", Book(str), data=write(tmp_path / "sqa.jsonl", rows), **judge)
    assert found.notes["recogniser_wer"] == 0.5


ASR = {"units": [1], "text": "red dog", "words": [{"text": "red dog", "units": [1]}]}
MUTE = {"units": [], "text": "red dog", "words": []}


@pytest.mark.parametrize("probe", ["speech_recognition", "unit_error", "interleave_form", "speech_synthesis"])
def test_rows_that_are_left_out_are_noted_and_no_score_is_over_none(
    registry: Registry, data: Path, tmp_path: Path, probe: str
) -> None:
    judge = {"templates": str(data / "templates.jsonl"), "codec": "tiny"} if probe == "speech_synthesis" else {}
    rows = [ASR, MUTE, ASR, MUTE] if probe != "speech_synthesis" else [ASR, {**ASR, "words": []}] * 2
    found = score(registry, probe, Book(lambda _: "red dog"), data=write(tmp_path / "r.jsonl", rows), **judge)
    assert found.notes["unusable"] == 0.5
    assert len(found.items) == 2
    whole = score(registry, probe, Book(lambda _: "red dog"), data=write(tmp_path / "a.jsonl", [ASR, ASR]), **judge)
    assert "unusable" not in whole.notes
    with pytest.raises(DataError, match=r"none of the 2 rows of .*m\.jsonl can be scored; a row needs"):
        score(registry, probe, Book(str), data=write(tmp_path / "m.jsonl", rows[1::2]), **judge)


def test_a_word_error_rate_says_what_punctuation_makes_of_it(registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path / "asr.jsonl", [{"units": [1], "text": "Red dog, blue cat."}])
    found = score(registry, "speech_recognition", Book(lambda _: "red dog blue cat"), data=file)
    # "dog," and "cat." are two of four words
    assert (found.value, found.notes["errors_per_word_without_punctuation"]) == (0.5, 0.0)
    same = score(registry, "speech_recognition", Book(lambda _: "red dog, blue cat."), data=file)
    assert set(same.notes) == {"errors_per_character"}


def test_units_inside_a_word_or_before_punctuation_make_no_other_words(registry: Registry, tmp_path: Path) -> None:
    file = write(tmp_path / "tts.jsonl", [{"text": "anna sings.", "words": [{"text": "anna", "units": [1]}]}])
    for answer, value in (("an<|1|>na sin<|2|>gs<|3|>.<|4|>", 1.0), ("an<|1|>na sang<|2|>.<|3|>", 0.0)):
        found = score(registry, "interleave_form", Book(lambda _, said=answer: said), data=file)
        assert found.value == value
