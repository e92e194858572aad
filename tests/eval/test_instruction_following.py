"""IFEval's checks, by lm-evaluation-harness's own implementation."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.book import Book, score, write
from slm_plugin.errors import DataError, PipelineError

pytest.importorskip("lm_eval", reason="pip install 'slm-plugin[eval]'")
pytest.importorskip("langdetect", reason="pip install 'slm-plugin[eval]'")

# rows as google/IFEval has them: every argument that an instruction does not take is null
ROWS = [
    {
        "key": 1,
        "prompt": "Name a bird without commas, in at least three words.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{"num_words": None, "relation": None}, {"num_words": 3, "relation": "at least"}],
    },
    {
        "key": 2,
        "prompt": "Praise the weather, and mention rain.",
        "instruction_id_list": ["keywords:existence"],
        "kwargs": [{"keywords": ["rain"], "relation": None}],
    },
    {
        "key": 3,
        "prompt": "Shout something.",
        "instruction_id_list": ["change_case:english_capital"],
        "kwargs": [{}],
    },
]
ANSWERS = {
    # no comma, but only two words
    "Name a bird without commas, in at least three words.": "A robin",
    "Praise the weather, and mention rain.": "Rain is lovely",
    # loose passes over the first line
    "Shout something.": "Here it is:\nTHE WEATHER IS LOVELY TODAY AND THE BIRDS ARE SINGING",
}


@pytest.fixture(scope="module", autouse=True)
def splitter(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the sentence splitter that nltk would download, trained on two sentences, in its published layout."""
    import nltk
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    home = tmp_path_factory.mktemp("nltk_data")
    folder = home / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    # nltk reads and writes nowhere else
    nltk.data.path.insert(0, str(home))
    trainer = PunktTrainer("It rains. It shines.")
    save_punkt_params(trainer.get_params(), dir=str(folder))
    yield
    nltk.data.path.remove(str(home))


def test_prompts_and_single_instructions_are_counted_strictly_and_loosely(registry, tmp_path) -> None:
    file = write(tmp_path / "ifeval.jsonl", ROWS)
    found = score(registry, "instruction_following", Book(ANSWERS.__getitem__, None), data=file)
    # prompts: no (too few words), yes, no (not all capitals); loosely the third is followed
    assert (found.value, found.n, found.better) == (pytest.approx(1 / 3), 3, "higher")
    assert [item[0] for item in found.items] == [0.0, 1.0, 0.0]
    # of four instructions: no comma, rain; loosely capitals too
    assert found.notes == {"prompt_loose": pytest.approx(2 / 3), "instruction_strict": 0.5, "instruction_loose": 0.75}
    assert found.examples[0]["expected"] == "punctuation:no_comma, length_constraints:number_words"
    loose = score(registry, "instruction_following", Book(ANSWERS.get), data=file, level="instruction_loose")
    assert (loose.value, loose.n) == (0.75, 4)


def test_sentences_are_counted_with_the_splitter(registry, tmp_path) -> None:
    row = {
        "prompt": "x",
        "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"num_sentences": 2, "relation": "at least"}],
    }
    file = write(tmp_path / "ifeval.jsonl", [row])
    assert score(registry, "instruction_following", Book(lambda _: "It rains. It shines."), data=file).value == 1.0
    assert score(registry, "instruction_following", Book(lambda _: "It rains."), data=file).value == 0.0


def test_without_the_splitter_it_says_how_to_get_it(registry, tmp_path, monkeypatch) -> None:
    row = {"prompt": "x", "instruction_id_list": ["change_case:capital_word_frequency"], "kwargs": [{}]}
    file = write(tmp_path / "ifeval.jsonl", [row])
    monkeypatch.setattr("nltk.data.path", [])
    with pytest.raises(PipelineError, match=r"capital_word_frequency: .* python -m nltk\.downloader punkt_tab"):
        score(registry, "instruction_following", Book(str), data=file)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction_id_list": ["punctuation:no_coma"]}, r"no instruction 'punctuation:no_coma'\. Did you mean"),
        ({"instruction_id_list": []}, "needs instruction_id_list"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]}, "1 instructions and 2 kwargs"),
    ],
)
def test_rows_that_ifeval_does_not_know_are_refused(registry, tmp_path: Path, row, message) -> None:
    file = write(tmp_path / "ifeval.jsonl", [{"prompt": "x", **row}])
    with pytest.raises(DataError, match=message):
        score(registry, "instruction_following", Book(str), data=file)
