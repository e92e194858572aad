import re

from hypothesis import given
from hypothesis import strategies as st

from slm_serve.answer import Answer, AnswerParser, Heard, Piece, Voice, Words
from slm_serve.splitter import TextRun, UnitRun

# a written-out answer: text, or a tuple of units
Whole = list[str | tuple[int, ...]]


def parse(whole: Whole, sections: bool, speech: bool) -> tuple[str | None, str, str, tuple[int, ...]]:
    parser = AnswerParser(sections, speech)
    pieces: list[Piece] = []
    for item in whole:
        pieces += parser.feed(TextRun(item) if isinstance(item, str) else UnitRun(item))
    pieces += parser.finish()
    heard = [piece.text for piece in pieces if isinstance(piece, Heard)]
    assert len(heard) <= 1
    return (
        heard[0] if heard else None,
        "".join(piece.text for piece in pieces if isinstance(piece, Answer)),
        "".join(piece.text for piece in pieces if isinstance(piece, Words)),
        tuple(unit for piece in pieces if isinstance(piece, Voice) for unit in piece.units),
    )


FULL: Whole = ["who?\n\nme\n\nit ", (1, 2), "is ", (3,), "me", (4,)]


def test_a_spoken_answer_has_a_heard_question_a_written_answer_and_words_with_units():
    assert parse(FULL, sections=True, speech=True) == ("who?", "me", "it is me", (1, 2, 3, 4))


def test_a_written_answer_to_speech_ends_at_the_second_blank_line():
    assert parse(FULL, sections=True, speech=False) == ("who?", "me", "", ())
    parser = AnswerParser(sections=True, speech=False)
    parser.feed(TextRun("who?\n\nme\n"))
    assert not parser.done
    parser.feed(TextRun("\n"))
    assert parser.done


def test_without_sections_text_is_the_answer_and_units_are_only_spoken():
    assert parse(["a\n\nb", (1,), "c\n\n"], sections=False, speech=False) == (None, "a\n\nbc\n\n", "", ())
    assert parse(["a\n\nb", (1,), "c\n\n"], sections=False, speech=True) == (None, "", "a\n\nbc\n\n", (1,))


def test_a_written_answer_with_paragraphs_stays_apart_from_the_spoken_words():
    assert parse(["q\n\none\n\ntwo\n\nthree ", (1,)], sections=True, speech=True) == (
        "q",
        "one\n\ntwo",
        "three ",
        (1,),
    )


def test_missing_sections_leave_what_there_is():
    # interleaved from the start
    assert parse(["it ", (1,), "is", (2,)], sections=True, speech=True) == (None, "", "it is", (1, 2))
    assert parse(["it ", (1,), "is", (2,)], sections=True, speech=False) == (None, "it is", "", ())
    # one blank line: the question and the interleaved answer
    assert parse(["q\n\nit ", (1,)], sections=True, speech=True) == ("q", "", "it ", (1,))
    assert parse(["q\n\nme ", (1,), "me"], sections=True, speech=False) == ("q", "me ", "", ())
    # no units at all: the last section is what would have been spoken
    assert parse(["only"], sections=True, speech=True) == (None, "", "only", ())
    assert parse(["q\n\na"], sections=True, speech=True) == ("q", "", "a", ())
    assert parse(["q\n\na\n\nw"], sections=True, speech=True) == ("q", "a", "w", ())
    # no blank line: a transcription, for example
    assert parse(["only"], sections=True, speech=False) == (None, "only", "", ())
    # nothing
    assert parse([], sections=True, speech=True) == (None, "", "", ())
    # units alone
    assert parse([(1,), (2,)], sections=True, speech=True) == (None, "", "", (1, 2))


def test_what_follows_the_end_is_passed_over():
    parser = AnswerParser(sections=True, speech=False)
    parser.feed(TextRun("q\n\na\n\n"))
    assert parser.feed(TextRun("more")) == []
    assert parser.feed(UnitRun((1,))) == []
    assert parser.finish() == []


def test_pieces_leave_as_soon_as_they_are_sure():
    parser = AnswerParser(sections=True, speech=False)
    assert parser.feed(TextRun("who")) == []
    assert parser.feed(TextRun("?\n\nm")) == [Heard("who?"), Answer("m")]
    assert parser.feed(TextRun("e\n")) == [Answer("e")]
    assert parser.feed(TextRun("too")) == [Answer("\ntoo")]


items = st.lists(
    st.one_of(
        st.text(alphabet="ab \n", min_size=1, max_size=8),
        st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple),
    ),
    max_size=8,
)


@st.composite
def cut(draw: st.DrawFn) -> tuple[Whole, Whole]:
    """An answer, and the same one cut into other runs."""
    whole = draw(items)
    pieces: Whole = []
    for item in whole:
        spots = sorted(draw(st.sets(st.integers(1, max(1, len(item) - 1)), max_size=3)))
        pieces += [item[a:b] for a, b in zip([0, *spots], [*spots, len(item)], strict=True) if item[a:b]]
    return whole, pieces


@given(cut(), st.booleans(), st.booleans())
def test_the_cutting_of_the_text_never_matters(both, sections, speech):
    whole, pieces = both
    assert parse(pieces, sections, speech) == parse(whole, sections, speech)


@given(items, st.booleans())
def test_every_unit_is_spoken_once_and_in_order(whole, sections):
    units = tuple(unit for item in whole if not isinstance(item, str) for unit in item)
    assert parse(whole, sections, speech=True)[3] == units
    assert parse(whole, sections, speech=False)[3] == ()


@given(items)
def test_no_word_is_lost_or_made_up_in_a_spoken_answer(whole):
    text = "".join(item for item in whole if isinstance(item, str))
    heard, answer, words, _ = parse(whole, sections=True, speech=True)
    assert re.sub(r"\n", "", (heard or "") + answer + words) == re.sub(r"\n", "", text)
