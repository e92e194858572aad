"""Cut a text into what is aligned: words, or characters where a language writes none apart."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "cmn", "wuu", "nan", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Codes (ISO 639) of languages that write no blanks between words."""

UNSPACED_SCRIPTS = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}"
    r"\p{Script=Khmer}\p{Script=Myanmar}\p{Script=Tibetan}\p{Script=Bopomofo}"
)
"""Scripts of those languages, as the inside of a class of the module ``regex``."""

# small kana, the long-vowel mark and tone marks are sounded with the character before
_ATTACHED = r"ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮー\p{M}"
# a vowel written before its consonant (เ แ โ ใ ไ, Lao likewise) is sounded after it
_LEADING = r"[เแโใไເແໂໃໄ]?"


@dataclass(frozen=True)
class Words:
    """A text in pieces.

    Attributes:
        pieces: The words. With an empty joiner they are verbatim, blanks and punctuation included.
        joiner: What stands between them: a blank, or nothing.
    """

    pieces: tuple[str, ...]
    joiner: str


def split_words(text: str, language: str = "") -> Words:
    """Cut a text at blanks, or into characters where its language or its script writes no blanks.

    Of a text without blanks every character of its script is a piece; runs of other letters and digits stay
    whole, and punctuation and blanks stay with the piece before (at the beginning: with the first).

    Args:
        text: The text.
        language: ISO 639 code such as ``zh`` or ``zh-CN``; by the text's script unless given.

    Returns:
        Pieces that joined give the text (with a blank as joiner: up to runs of blanks).
    """
    import regex

    code = language.replace("_", "-").split("-")[0].lower()
    unspaced = code in UNSPACED_LANGUAGES if code else bool(regex.search(f"[{UNSPACED_SCRIPTS}]", text))
    if not unspaced:
        return Words(tuple(text.split()), " ")
    pattern = f"{_LEADING}[{UNSPACED_SCRIPTS}][{_ATTACHED}]*|[^{UNSPACED_SCRIPTS}\\s]+|\\s+"
    pieces: list[str] = []
    for piece in regex.findall(pattern, text):
        if pieces and (not has_sound(piece) or not has_sound(pieces[-1])):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return Words(tuple(pieces), "")


def has_sound(piece: str) -> bool:
    """Say whether a piece has a letter or a digit."""
    return any(unicodedata.category(character)[0] in "LN" for character in piece)


def plain(word: str) -> str:
    """Return a word as it is compared: compatibility form, without case, letters, marks and digits only."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(character for character in folded if unicodedata.category(character)[0] in "LNM")
