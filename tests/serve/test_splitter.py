from hypothesis import given
from hypothesis import strategies as st

from slm_serve.splitter import Splitter, TextRun, UnitRun


def split(tokenizer, vocabulary, pieces):
    splitter = Splitter(tokenizer, vocabulary)
    runs = [run for piece in pieces for run in splitter.feed(piece)] + splitter.finish()
    return runs, splitter.n_units


def text_of(runs):
    return "".join(run.text for run in runs if isinstance(run, TextRun))


def test_text_and_units_come_in_order_and_joined(tokenizer, vocabulary, write):
    runs, n_units = split(tokenizer, vocabulary, [write("hello <|3|><|4|>world<|7|>")])
    assert runs == [TextRun("hello "), UnitRun((3, 4)), TextRun("world"), UnitRun((7,))]
    assert n_units == 3


def test_a_character_that_units_tear_apart_comes_out_whole_behind_them(tokenizer, vocabulary, write):
    smile = write("\U0001f600")
    assert len(smile) == 4  # four bytes, none of them merged
    unit = vocabulary.first_id
    runs, _ = split(tokenizer, vocabulary, [[smile[0], unit, smile[1], unit + 1, *smile[2:], unit + 2]])
    assert runs == [UnitRun((0, 1)), TextRun("\U0001f600"), UnitRun((2,))]


def test_an_answer_that_ends_inside_a_character_shows_it(tokenizer, vocabulary, write):
    runs, _ = split(tokenizer, vocabulary, [write("a\U0001f600")[:3]])
    assert text_of(runs) == "a\ufffd"


def test_other_special_tokens_are_passed_over(tokenizer, vocabulary, write):
    runs, _ = split(tokenizer, vocabulary, [write("a<|eot_id|>b<|start_header_id|>")])
    assert text_of(runs) == "ab"


@given(data=st.data())
def test_any_ids_cut_anyhow_give_the_text_of_the_text_ids(data, tokenizer, vocabulary):
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    spots = sorted(data.draw(st.sets(st.integers(0, len(ids)), max_size=5)))
    pieces = [ids[a:b] for a, b in zip([0, *spots], [*spots, len(ids)], strict=True)]
    runs, n_units = split(tokenizer, vocabulary, pieces)
    words = [i for i in ids if not vocabulary.is_unit(i)]
    assert text_of(runs) == tokenizer.decode(words, skip_special_tokens=True)
    assert [u for run in runs if isinstance(run, UnitRun) for u in run.units] == vocabulary.units(ids)
    assert n_units == len(vocabulary.units(ids))
