from hypothesis import given
from hypothesis import strategies as st

from slm_serve.stop import StopScanner


def scan(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    scanner = StopScanner(stops)
    text = "".join([scanner.feed(piece) for piece in pieces])
    return text + scanner.finish(), scanner.found


def test_text_up_to_a_stop_string_passes_and_nothing_behind_it():
    assert scan(["hel", "lo wor", "ld"], ["wo"]) == ("hello ", True)
    assert scan(["hello"], ["x"]) == ("hello", False)
    assert scan(["hello"], []) == ("hello", False)


def test_text_that_may_become_a_stop_string_waits():
    scanner = StopScanner(["END"])
    assert scanner.feed("the EN") == "the "
    assert scanner.feed("T") == "ENT"
    assert scanner.feed("E") == ""
    assert scanner.finish() == "E"


def test_of_two_stop_strings_the_one_complete_first_counts():
    # "bc" is complete at 3, "abcd" at 4
    assert scan(["abcd"], ["abcd", "bc"]) == ("a", True)


@given(
    st.lists(st.text(alphabet="abc", max_size=4), max_size=6),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=3),
)
def test_the_result_is_that_of_reading_letter_by_letter(pieces, stops):
    whole = "".join(pieces)
    ends = [end for end in range(1, len(whole) + 1) if any(whole[:end].endswith(stop) for stop in stops)]
    expected = whole
    if ends:
        longest = max(len(stop) for stop in stops if whole[: ends[0]].endswith(stop))
        expected = whole[: ends[0] - longest]
    assert scan(pieces, stops) == (expected, bool(ends))
