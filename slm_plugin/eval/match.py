"""Whether an answer is a right one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from slm_plugin.alignment.words import UNSPACED_SCRIPTS
from slm_plugin.eval.normalise import Normalisation, join_digit_groups, normaliser, plain, without_brackets

Match = Literal["exact", "contains"]

_BRACKETS = str.maketrans("()[]<>", "      ")


@dataclass(frozen=True)
class _Piece:
    """A word, or a part of one that is joined by hyphens.

    Attributes:
        text: Its letters.
        begins: Whether a word begins with it.
        ends: Whether a word ends with it.
    """

    text: str
    begins: bool = True
    ends: bool = True

    def __str__(self) -> str:
        return self.text


def matches(answer: str, right: Iterable[str], how: Match, normalise: Normalisation = "case") -> bool:
    """Tell whether an answer equals one of the right ones, or contains one as whole words.

    Both are compared word by word, without punctuation at the edges of words. A word that is joined by a hyphen is one
    word: ``one`` is not in ``twenty-one``, but ``twenty one`` is. A possessive ``'s`` and an elided article are words
    of their own, so that ``Amsterdam`` is in ``Amsterdam's``. A sign belongs to its number and a unit does not: ``5``
    is in ``5%`` but not in ``-5``, ``3.5`` or ``1,000``. In scripts without blanks between words, every character is a
    word. A right answer that has no word at all, such as ``+``, is compared between blanks.

    Args:
        answer: The answer as the model wrote it.
        right: Right answers; empty ones match nothing.
        how: ``exact`` or ``contains``.
        normalise: What does not count; the brackets that ``punctuation`` and ``english`` leave out may be left out.
    """
    given: list[list[_Piece]] | None = None
    for one in right:
        wanted = _forms(one, normalise)
        if not wanted:
            if one.strip() and _stands_in(plain(answer).split(), plain(one).split(), how):
                return True
            continue
        given = _forms(answer, normalise, answer=True) if given is None else given
        if any(_stands_in(form, pieces, how) for pieces in wanted for form in given):
            return True
    return False


def _stands_in(given: Sequence[_Piece | str], wanted: Sequence[_Piece | str], how: Match) -> bool:
    """Tell whether pieces equal others, or occur among them from the beginning of a word to the end of one."""
    texts, size = list(map(str, wanted)), len(wanted)
    if how == "exact":
        return list(map(str, given)) == texts
    found = list(map(str, given))
    return any(
        found[start : start + size] == texts and _begins(given[start]) and _ends(given[start + size - 1])
        for start in range(len(found) - size + 1)
    )


def _begins(piece: _Piece | str) -> bool:
    return isinstance(piece, str) or piece.begins


def _ends(piece: _Piece | str) -> bool:
    return isinstance(piece, str) or piece.ends


def _forms(text: str, normalise: Normalisation, answer: bool = False) -> list[list[_Piece]]:
    """Return the forms of a text that count as the same, in pieces; no form is empty."""
    if normalise == "case":
        texts = [text]
    else:
        # words in brackets may be left out, but need not be
        opened = text.translate(_BRACKETS)
        texts = list(dict.fromkeys((without_brackets(text), opened)))
        if normalise == "english":
            same = normaliser("english")
            # "one two" is spelled for 12, "one, two" is not
            parts = _pattern(r"[,;:!?]+\s+|\.\s+|\n").split(opened) if answer else []
            texts = [*map(same, texts), *([" ".join(map(same, parts))] if parts[1:] else [])]
    forms = (list(_pieces(one, symbols=normalise != "punctuation")) for one in dict.fromkeys(texts))
    return [form for form in forms if form]


def _pieces(text: str, symbols: bool) -> Iterator[_Piece]:
    """Yield the pieces of the words of a text.

    Args:
        text: The text.
        symbols: Whether symbols, such as those of a currency, and punctuation inside a word count.
    """
    text = _pattern(r"(?<![\w.])\.(?=\d)").sub("0.", plain(join_digit_groups(text)))
    for found in _pattern(_TOKEN).finditer(text):
        word = found[0]
        if found["symbol"]:
            if symbols:
                yield _Piece(word)
            continue
        parts = [part for part in _pattern(_AFFIXES).split(word) if part]
        if not symbols:
            parts = [part for one in parts for part in _pattern(_INNER).split(one.replace("'", "")) if part]
        for part in parts:
            cut = _pattern(r"(?<=.)-").split(part)
            for place, piece in enumerate(cut):
                yield _Piece(piece, place == 0, place == len(cut) - 1)


# scripts that are compared character by character; a word of Katakana is written as one run
_SINGLE = rf"(?![\p{{Script=Katakana}}ー])[{UNSPACED_SCRIPTS}\p{{Script=Hangul}}]"
_LETTER = rf"(?!{_SINGLE})[\p{{L}}\p{{N}}\p{{M}}]"
_TOKEN = (
    rf"(?P<single>{_SINGLE}\p{{M}}*)"
    rf"|(?:(?<![\w)\]%])-(?=\d))?(?:{_LETTER})+"
    # what may stand inside a word, and inside a number
    rf"(?:(?:['._@&·-]|(?<=\d)[,:/](?=\d))(?:{_LETTER})+)*"
    # C++ and C# are names
    rf"(?:(?<=\p{{L}})[+#]+(?![\p{{L}}\p{{N}}]))?"
    r"|(?P<symbol>[+=<>\u00d7\u00f7\u00b1%\u2030\u00b0\p{Sc}])"
)
_AFFIXES = r"(?<=.)(?='s$)|(?<=^(?:[cdjlmnst]|qu|un|all|dall|dell|nell|sull)')(?=..)"
_INNER = r"(?<!\d)[._@&·+#]+|[._@&·+#]+(?!\d)|[:/]"


@cache
def _pattern(pattern: str) -> Any:
    import regex

    return regex.compile(pattern)
