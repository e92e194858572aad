"""Text chats in the form of Magpie, to be spoken: one question, one answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from slm_plugin.eval.rows import has_text, right_answers
from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.corpora.loading import digest, open_rows, require_columns
from slm_plugin.prepare.corpora.protocol import ChatItem, Item, Unusable
from slm_plugin.stages.sqa import UNSPEAKABLE
from slm_plugin.strict import Strict

QUESTIONS, ANSWERS = ("input", "instruction", "question"), ("output", "response", "answer")


class Chats:
    """Rows with a question and an answer, or with ``conversations`` whose first two turns are taken.

    Columns: ``input``, ``instruction`` or ``question``; ``output``, ``response`` or ``answer``; or
    ``conversations`` of ``{"from", "value"}`` or ``messages`` of ``{"role", "content"}``. An ``answer`` beside a
    spoken one is the short answer that ``spoken_qa`` scores against.
    """

    class Options(Strict):
        """Options of ``chats``."""

        path: str
        """Name on the hub, or a local folder or file: Parquet, JSON lines, CSV, or what ``save_to_disk`` wrote."""

        subset: str | None = None
        """Configuration of the set."""

        split: str = "train"
        """Split of the set."""

        revision: str | None = None
        """Commit, branch or tag on the hub."""

        short_answer: str = "answer"
        """Column with a short right answer beside the spoken one, or with several: a text, a list, or a mapping with
        ``value`` and ``aliases``. It is kept as ``answer`` and is not spoken; a column that holds the spoken answer
        is no short one."""

        skip_categories: list[str] = Field(default_factory=lambda: sorted(UNSPEAKABLE))
        """Values of ``task_category`` whose answers nobody would say aloud."""

        max_question_characters: int = Field(default=600, ge=1)
        """Longer questions are dropped."""

        max_answer_characters: int = Field(default=2000, ge=1)
        """Longer answers are dropped."""

        n: int | None = Field(default=None, ge=1)
        """How many rows; all unless set."""

        language: str = "en"
        """ISO 639 code of the language."""

        licence: str = ""
        """Terms of the data, for its card."""

    kind: Literal["speech", "chats"] = "chats"

    def __init__(self, options: Options) -> None:
        self._options = options
        rows = open_rows(options.path, options.subset, options.split, options.revision)
        self._rows = rows if options.n is None else rows.select(range(min(options.n, len(rows))))
        if "short_answer" in options.model_fields_set:
            require_columns(rows, [options.short_answer], options.path)
        self.licence = options.licence or f"those of the page of {options.path}"
        self.fingerprint = digest(self._rows, **options.model_dump(exclude={"licence"}))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        row, options, name = self._rows[index], self._options, f"{self._options.split}-{index:08d}"
        question, answer = turns(row)
        short = _short(row, options.short_answer)
        if row.get("task_category") in options.skip_categories:
            return Unusable(name, "category", f"nobody would say {row['task_category']} aloud.")
        if not question or not answer:
            return Unusable(name, "no_text", "the row has no question or no answer.")
        for what, text, limit in (
            ("question", question, options.max_question_characters),
            ("answer", answer, options.max_answer_characters),
        ):
            if len(text) > limit:
                return Unusable(name, "too_long", f"the {what} has {len(text)} characters, more than {limit}.")
        return ChatItem(name, question, answer, options.language, short)


def turns(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return question and answer of a row in any of the known forms; empty where it has none."""
    for column, key in (("conversations", "value"), ("messages", "content")):
        said = row.get(column)
        if isinstance(said, Sequence) and not isinstance(said, str):
            texts = [turn.get(key) for turn in said if (turn.get("from") or turn.get("role")) not in ("system", None)]
            if len(texts) >= 2:
                return str(texts[0] or "").strip(), str(texts[1] or "").strip()
    return _first(row, QUESTIONS), _first(row, ANSWERS)


def _short(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the short answers of a row; none if the column is missing, blank, or the one that is spoken."""
    has_turns = any(isinstance(row.get(column), list) for column in ("conversations", "messages"))
    spoken = None if has_turns else next((column for column in ANSWERS if _text(row, column)), None)
    if name == spoken or not has_text({name: None, **row}, name):
        return ()
    value = row[name]
    return (str(value),) if isinstance(value, int | float) else tuple(right_answers(row, name))


def _first(row: Mapping[str, Any], columns: Sequence[str]) -> str:
    return next((text for column in columns if (text := _text(row, column))), "")


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    return value.strip() if isinstance(value, str) else ""


@hookimpl
def slm_register_corpora(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``chats``."""
    register("chats", Chats)
