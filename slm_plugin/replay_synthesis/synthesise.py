"""Ask a model for rows until there are enough, and keep count of what is dropped and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from slm_plugin.data.mixing import shuffled_passes
from slm_plugin.errors import ConfigError, Problem, VocabularyError
from slm_plugin.eval.rows import read_rows
from slm_plugin.generation.model import Speaker
from slm_plugin.generation.protocol import Answer, Engine, Sampling
from slm_plugin.plugins import Registry
from slm_plugin.replay_synthesis import filter as reasons
from slm_plugin.replay_synthesis.options import SynthesisOptions
from slm_plugin.replay_synthesis.prompts import Task, make_draft, make_task
from slm_plugin.replay_synthesis.protocol import Draft
from slm_plugin.stages.protocol import Stage

WHERE = "slm replay synthesise"
MARGIN = 1.25
"""Answers asked for per row that is missing, in each round."""

_ANSWERS = 1 << 40
"""Keeps the seeds of answers apart from those of the user turns they answer."""


@dataclass
class Synthesis:
    """What came of it.

    Attributes:
        rows: The rows kept.
        asked: Answers asked for; user turns that the model wrote itself count as such.
        dropped: Answers dropped, by reason.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


def check(options: SynthesisOptions) -> None:
    """Refuse combinations that cannot give rows.

    Raises:
        ConfigError: Lists them.
    """
    problems = []
    if options.prompts is None and options.stage != "llm":
        text = f"{options.stage} needs --prompts: JSON lines with what to answer (only llm writes its own questions)."
        problems.append(Problem(WHERE, text))
    if options.prompts is None and options.temperature == 0:
        problems.append(Problem(WHERE, "--temperature 0 without --prompts writes one row again and again; raise it."))
    longest = options.limits.max_tokens
    if longest is not None and longest < options.limits.min_tokens:
        problems.append(Problem(WHERE, f"--max-tokens {longest} is below --min-tokens {options.limits.min_tokens}."))
    if problems:
        raise ConfigError(problems)


def synthesise(
    options: SynthesisOptions,
    speaker: Speaker,
    engine: Engine,
    registry: Registry,
    say: Callable[[str], None] = lambda line: None,
) -> Synthesis:
    """Let a model write rows of a stage.

    Args:
        options: What to write.
        speaker: The tokenizer's side.
        engine: The model's side.
        registry: Where the stages are.
        say: Takes a line of progress after each round.

    Raises:
        DataError: The prompts cannot be read or asked.
        VocabularyError: The stage needs units and the model has none, or one is out of range.
    """
    unit_count = speaker.vocabulary.count if speaker.vocabulary else 0
    if options.stage != "llm" and not unit_count:
        raise VocabularyError(f"{options.model} has no unit tokens, and rows of {options.stage} are made of them.")
    stages: dict[str, Stage] = {name: registry.stages.get(name)() for name in ("llm", "asr", "tts", "sqa")}
    prompts = read_rows(options.prompts) if options.prompts else [{"input": "a"}]
    task = make_task(options.stage, prompts, stages, unit_count, options.limits)
    found, seen = Synthesis(), reasons.Seen(options.limits.near_duplicates)
    limit = options.attempts * options.rows
    if options.temperature == 0:
        # a second answer to the same prompt would be the same
        limit = min(limit, len(task.drafts))
    while len(found.rows) < options.rows and found.asked < limit:
        missing = options.rows - len(found.rows)
        n_asked = min(math.ceil(missing * MARGIN), limit - found.asked)
        sampling = Sampling(
            options.temperature,
            options.top_p,
            options.max_new_tokens,
            speaker.stop_ids,
            options.seed * 1_000_003 + found.asked,
            options.limits.min_log_probability is not None,
        )
        if options.prompts is None:
            drafts = _own_questions(n_asked, options, speaker, engine, sampling, stages["llm"], found)
        else:
            numbers = shuffled_passes(
                len(task.drafts), found.asked, found.asked + n_asked, options.seed, options.stage
            )
            drafts = [task.drafts[number] for number in numbers]
        found.asked += n_asked
        _answer(drafts, options, task, speaker, engine, sampling, seen, found)
        say(f"{len(found.rows)} of {options.rows} rows, {found.asked} asked for")
    return found


def _own_questions(
    n_asked: int,
    options: SynthesisOptions,
    speaker: Speaker,
    engine: Engine,
    sampling: Sampling,
    stage: Stage,
    found: Synthesis,
) -> list[Draft]:
    """Let the model continue its own user header, and keep the user turns that can be answered."""
    drafts = []
    asked_before = {row["input"] for row in found.rows}
    for written in engine.generate([speaker.user_header()] * n_asked, sampling):
        text = speaker.text(written.ids).strip()
        draft = make_draft("llm", {"input": text}, stage, 0)
        problem = _problem(text, written, options, speaker, is_question=True)
        if problem is None and draft is None:
            problem = reasons.EMPTY
        if problem is None and text in asked_before:
            problem = reasons.DUPLICATE
        if problem is None and speaker.vocabulary is not None and speaker.vocabulary.units(written.ids):
            problem = reasons.UNITS
        if problem is not None:
            found.dropped[f"question: {problem}"] += 1
        elif draft is not None:
            asked_before.add(text)
            drafts.append(draft)
    return drafts


def _answer(
    drafts: Sequence[Draft],
    options: SynthesisOptions,
    task: Task,
    speaker: Speaker,
    engine: Engine,
    sampling: Sampling,
    seen: reasons.Seen,
    found: Synthesis,
) -> None:
    """Have drafts answered and take in the rows that pass, until there are enough."""
    if not drafts:
        return
    seeded = Sampling(**{**vars(sampling), "seed": sampling.seed + _ANSWERS})
    for draft, written in zip(
        drafts, engine.generate([speaker.prompt(draft.user) for draft in drafts], seeded), strict=True
    ):
        if len(found.rows) == options.rows:
            found.dropped["more than enough"] += 1
            continue
        text = speaker.text(written.ids)
        problem = _problem(text, written, options, speaker)
        row = task.complete(draft.row, text) if problem is None else problem
        if isinstance(row, dict):
            problem = seen.add(f"{draft.user}\n{text}")
            if problem is None:
                found.rows.append(row)
                continue
            row = problem
        found.dropped[row] += 1


def _problem(
    text: str, written: Answer, options: SynthesisOptions, speaker: Speaker, is_question: bool = False
) -> str | None:
    limits = options.limits
    if is_question:
        limits = limits.model_copy(update={"min_tokens": 1, "max_tokens": None, "min_log_probability": None})
    problem = reasons.length_problem(written, limits)
    if problem is None and speaker.special(written.ids):
        problem = reasons.SPECIAL
    return problem or reasons.repetition_problem(text, limits)
