"""Probe ``instruction_following``: instructions whose following can be checked by a program.

Source: IFEval, arXiv 2311.07911; the checks are lm-evaluation-harness's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from slm_plugin.data.rows import text
from slm_plugin.errors import DataError, PipelineError, suggest
from slm_plugin.eval.protocol import Generator
from slm_plugin.eval.rates import share
from slm_plugin.eval.rows import DataOptions
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Score

Level = Literal["prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"]

SPLITS_SENTENCES = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
"""Instructions whose checks need nltk's sentence splitter, which nltk downloads apart from itself."""

INSTALL = "pip install 'slm-plugin[eval]'"


class InstructionFollowing:
    """The share of prompts all of whose instructions are followed (or of single instructions).

    Strict takes the answer as it stands; loose also without its first or last line and without asterisks.
    """

    class Options(DataOptions):
        """Options of ``instruction_following``."""

        data: str = "google/IFEval"
        """Rows with ``prompt``, ``instruction_id_list`` and ``kwargs``, as the set on the hub has them."""

        level: Level = "prompt_strict"
        """Which of IFEval's four numbers is the score; the others stand in the notes."""

        max_new_tokens: int = Field(default=1280, ge=1)
        """Longest answer."""

    better: Literal["higher", "lower"] = "higher"
    needs_units = False

    def __init__(self, options: Options) -> None:
        self.options = options

    def score(self, skill: str, generator: Generator) -> Score:
        """Return the share that is followed.

        Raises:
            PipelineError: lm-evaluation-harness, or what its checks need, is not installed.
            DataError: A row names an instruction that IFEval does not have.
        """
        rows = self.options.rows()
        check = _checks(name for row in rows for name in _names(row))
        answers = generator.answer([text(row, "prompt") for row in rows], self.options.max_new_tokens)
        documents = [_document(row, key) for key, row in enumerate(rows)]
        found = [check(document, [answer]) for document, answer in zip(documents, answers, strict=True)]
        rates = {
            "prompt_strict": share([one["prompt_level_strict_acc"] for one in found]),
            "prompt_loose": share([one["prompt_level_loose_acc"] for one in found]),
            "instruction_strict": share([hit for one in found for hit in one["inst_level_strict_acc"]]),
            "instruction_loose": share([hit for one in found for hit in one["inst_level_loose_acc"]]),
        }
        rate = rates.pop(self.options.level)
        notes = {name: other.value for name, other in rates.items()}
        shown = self.options.shown(
            (text(row, "prompt"), ", ".join(_names(row)), answer) for row, answer in zip(rows, answers, strict=True)
        )
        return Score(skill, rate.value, rate.n, self.better, rate.standard_error, shown, notes, rate.items)


def _names(row: Mapping[str, Any]) -> list[str]:
    names = row.get("instruction_id_list")
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise DataError("a row needs instruction_id_list, a list of IFEval's instructions.")
    return list(names)


def _document(row: Mapping[str, Any], key: int) -> dict[str, Any]:
    arguments = list(row.get("kwargs") or [{} for _ in _names(row)])
    if len(arguments) != len(_names(row)):
        raise DataError(f"a row has {len(_names(row))} instructions and {len(arguments)} kwargs; each needs its own.")
    known = {"key": row.get("key", key), "prompt": text(row, "prompt")}
    return {**known, "instruction_id_list": _names(row), "kwargs": [given or {} for given in arguments]}


def _checks(names: Iterable[str]) -> Callable[[dict[str, Any], list[str]], dict[str, Any]]:
    """Return the harness's own scoring of one answer.

    Raises:
        PipelineError: It, or what it needs, is not installed.
        DataError: It does not have one of the instructions.
    """
    try:
        import langdetect
        import nltk
        from lm_eval.tasks.ifeval import instructions_registry, utils
    except ImportError as error:
        raise PipelineError(f"the probe instruction_following needs {error.name}; {INSTALL}.") from None
    # it guesses from random parts of a text unless it is told where to begin
    langdetect.DetectorFactory.seed = 0
    wanted = set(names)
    for name in sorted(wanted):
        if name not in instructions_registry.INSTRUCTION_DICT:
            known = suggest(name, instructions_registry.INSTRUCTION_DICT, "Instructions")
            raise DataError(f"IFEval has no instruction {name!r}. {known}")
    if wanted & set(SPLITS_SENTENCES):
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError:
            which = ", ".join(sorted(wanted & set(SPLITS_SENTENCES)))
            raise PipelineError(
                f"{which}: the check needs nltk's sentence splitter; python -m nltk.downloader punkt_tab."
            ) from None
    check: Callable[[dict[str, Any], list[str]], dict[str, Any]] = utils.process_results
    return check


@hookimpl
def slm_register_probes(register: Callable[[str, type], None]) -> None:
    """Offer ``instruction_following``."""
    register("instruction_following", InstructionFollowing)
