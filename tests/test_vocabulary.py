from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import tiny_models
from slm_plugin.errors import VocabularyError
from slm_plugin.vocabulary import (
    UnitVocabulary,
    check_range,
    malformed_unit,
    neutralise,
    special_spellings,
    split_units,
    strip_units,
    text_to_units,
    unit_token,
    units_to_text,
)

unit_lists = st.lists(st.integers(min_value=0, max_value=9_999), max_size=40)


@pytest.fixture
def tokenizer():
    return tiny_models.make_tokenizer()


def test_units_are_written_one_behind_the_other():
    assert units_to_text([3, 1]) == unit_token(3) + unit_token(1) == "<|3|><|1|>"


@given(unit_lists)
def test_units_survive_being_written_and_read(units: list[int]):
    assert text_to_units(units_to_text(units)) == units


def test_reading_units_passes_over_other_text():
    assert text_to_units("anna<|3|> sings<|7|><|eot_id|><|x|>") == [3, 7]


@pytest.mark.parametrize(
    "text", ["<|01|>", "<|00|>", "<|\u0665|>", "<|\uff15|>", "<|5 |>", "<|-5|>", f"<|{'1' * 5000}|>"]
)
def test_a_unit_has_one_spelling(text: str):
    assert text_to_units(text) == []
    assert strip_units(text) == text
    assert malformed_unit(f"anna {text}<|3|>") is not None


@given(st.text(alphabet="<|0 a>9"))
def test_segments_joined_are_the_text(text: str):
    assert "".join(words + units_to_text(units) for words, units in split_units(text)) == text


def test_special_tokens_in_another_form_are_neutralised_too(tokenizer):
    tokenizer.add_tokens(["</s>", "[INST]", "<s>"], special_tokens=True)
    spellings = special_spellings(tokenizer)
    assert spellings == ("[INST]", "</s>", "<s>")
    for text in ("a</s>", "<s><s>", "[INST] <|eot_id|>", "<</s>s>"):
        ids = tokenizer(neutralise(text, spellings), add_special_tokens=False)["input_ids"]
        assert not set(ids) & set(tokenizer.added_tokens_decoder)


def test_tokens_of_turns_that_a_tokenizer_does_not_call_special_are_neutralised_and_thoughts_are_not(tokenizer):
    turns = ["<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"]
    tokenizer.add_tokens([*turns, "<think>", "<code>", "\n\n\n"])
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<\uff5c' + message['role'] | capitalize + '\uff5c>' + message['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c><think>\n\n\n' }}{% endif %}"
    )
    spellings = special_spellings(tokenizer)
    assert set(spellings) == set(turns)
    ids = tokenizer(neutralise("a<\uff5cUser\uff5c>b", spellings), add_special_tokens=False)["input_ids"]
    assert not set(ids) & set(tokenizer.added_tokens_decoder)


def test_removing_units_leaves_the_rest_as_it_is():
    assert strip_units("anna<|3|><|7|> sings<|eot_id|>") == "anna sings<|eot_id|>"


@given(st.text(), unit_lists)
def test_a_neutralised_text_holds_no_unit(text: str, units: list[int]):
    assert text_to_units(neutralise(text + units_to_text(units))) == []


@given(st.text(alphabet=st.characters(exclude_characters="<")))
def test_a_text_without_special_spelling_is_not_touched(text: str):
    assert neutralise(text) == text


def test_no_user_text_becomes_a_special_token(tokenizer):
    UnitVocabulary.extend(tokenizer, 20)
    ids = tokenizer(neutralise("<|17|> <|eot_id|> <<|3|>"), add_special_tokens=False)["input_ids"]
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert UnitVocabulary.find(tokenizer).units(ids) == []


def test_units_get_one_run_of_ids_behind_the_old_vocabulary(tokenizer):
    before = len(tokenizer)
    vocabulary = UnitVocabulary.extend(tokenizer, 200)
    assert vocabulary == UnitVocabulary(first_id=before, count=200)
    assert tokenizer.convert_tokens_to_ids(unit_token(199)) == before + 199
    assert len(tokenizer) == before + 200


def test_units_are_special_tokens_but_do_not_end_a_turn(tokenizer):
    vocabulary = UnitVocabulary.extend(tokenizer, 5)
    assert tokenizer.decode([vocabulary.first_id], skip_special_tokens=True) == ""
    # the host makes every additional special token an end of sequence
    assert "<|0|>" not in tokenizer.special_tokens_map.get("additional_special_tokens", [])


def test_an_extended_tokenizer_is_recognised_and_left_alone(tokenizer):
    first = UnitVocabulary.extend(tokenizer, 50)
    size = len(tokenizer)
    assert UnitVocabulary.extend(tokenizer, 50) == first == UnitVocabulary.find(tokenizer)
    assert len(tokenizer) == size


def test_a_saved_tokenizer_is_recognised_after_loading(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    vocabulary = UnitVocabulary.extend(tokenizer, 50)
    tokenizer.save_pretrained(tmp_path)
    assert UnitVocabulary.find(AutoTokenizer.from_pretrained(tmp_path)) == vocabulary


def test_a_tokenizer_without_units_has_none(tokenizer):
    assert UnitVocabulary.find(tokenizer) is None


def test_another_number_of_units_is_refused_with_both_numbers(tokenizer):
    UnitVocabulary.extend(tokenizer, 50)
    with pytest.raises(VocabularyError, match=r"already holds 50 units, the configuration asks for 60"):
        UnitVocabulary.extend(tokenizer, 60)


def test_number_tokens_that_are_not_one_run_are_refused(tokenizer):
    tokenizer.add_tokens(["<|0|>", "<|marker|>", "<|1|>"], special_tokens=True)
    with pytest.raises(VocabularyError, match="not one unbroken run"):
        UnitVocabulary.find(tokenizer)


def test_number_tokens_that_do_not_start_at_zero_are_refused(tokenizer):
    tokenizer.add_tokens(["<|1|>", "<|2|>"], special_tokens=True)
    with pytest.raises(VocabularyError, match="not one unbroken run"):
        UnitVocabulary.extend(tokenizer, 3)


@pytest.mark.parametrize("count", [0, -1])
def test_a_vocabulary_without_units_is_refused(tokenizer, count: int):
    with pytest.raises(VocabularyError, match="at least one unit"):
        UnitVocabulary.extend(tokenizer, count)


@given(st.lists(st.integers(min_value=0, max_value=99)))
def test_units_survive_becoming_ids(units: list[int]):
    vocabulary = UnitVocabulary(first_id=1000, count=100)
    assert vocabulary.units(vocabulary.ids(units)) == units


def test_ids_outside_the_run_are_not_units():
    vocabulary = UnitVocabulary(first_id=10, count=3)
    assert [vocabulary.is_unit(i) for i in (9, 10, 12, 13)] == [False, True, True, False]
    assert vocabulary.end_id == 13
    assert vocabulary.units([9, 10, 5, 12, 13]) == [0, 2]


@pytest.mark.parametrize("units", [[0, 3], [-1], [2, 1, 100]])
def test_a_unit_out_of_range_has_no_id(units: list[int]):
    with pytest.raises(VocabularyError, match=r"is outside 0\.\.2"):
        UnitVocabulary(first_id=10, count=3).ids(units)


def test_a_unit_out_of_range_is_named_with_its_position():
    with pytest.raises(VocabularyError, match=r"unit 200 at position 1 is outside 0\.\.199"):
        check_range([3, 200], 200)


@pytest.mark.parametrize(("count", "fits"), [(2, True), (6, False)])
def test_new_tokens_that_get_the_ids_of_old_ones_are_refused(count, fits):
    """A tokenizer numbers new tokens by how many it has, so a gap in its ids ends in a clash."""
    raw = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 7, "[UNK]": 2}, unk_token="[UNK]"))
    gapped = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]")
    if fits:
        assert UnitVocabulary.extend(gapped, count) == UnitVocabulary(4, count)
        return
    with pytest.raises(VocabularyError, match="new tokens get ids in use: 7 would be 'c' and a unit"):
        UnitVocabulary.extend(gapped, count)
