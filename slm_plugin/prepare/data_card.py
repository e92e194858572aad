"""The card of a data set: what it holds, what it was made with, whose terms hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from slm_plugin import __version__
from slm_plugin.prepare.corpora.protocol import Corpus
from slm_plugin.prepare.filters import FEW_UNITS, MANY_UNITS, MEMORY, PATTERN, ROW_FLAGS, UNREADABLE, flag_reason
from slm_plugin.prepare.job import Job
from slm_plugin.prepare.parts import Parts
from slm_plugin.prepare.plots import PICTURES
from slm_plugin.prepare.statistics import Statistics
from slm_plugin.speech.protocol import Codec

IMAGES = "images"

REASONS = {
    "alignment": "its words could not be placed",
    "audio": "the recording cannot be read or is refused",
    "category": "its category is left out",
    "duplicate": "another item has its name",
    "error": "something unexpected, see the message",
    "no_audio": "there is no recording",
    "no_text": "there is no text",
    "no_units": "it is too short for a unit",
    "speech": "the synthesiser refuses it",
    "too_long": "it is longer than allowed",
    "units_in_text": "its text holds unit tokens",
    MEMORY: "there was too little memory; the next run tries again",
    UNREADABLE: "the recording could not be read from the disk; the next run tries again",
    PATTERN: "its text matches `drop.patterns`",
    FEW_UNITS: "it has fewer units than `drop.min_units_per_word`",
    MANY_UNITS: "it has more units than `drop.max_units_per_word`",
    **{flag_reason(flag): f"it {text}, and is named in `drop.flags`" for flag, text in ROW_FLAGS.items()},
}
"""Why an item may be dropped, by the word that stands for it."""


def content(job: Job, parts: Parts, found: Statistics) -> dict[str, Any]:
    """Return what ``card.json`` holds: the numbers, and what they were made with."""
    codec = parts.codec
    return {
        "numbers": found.summary(),
        "made_with": {
            "slm_plugin": __version__,
            "codec": {"name": job.options.codec, **describe_codec(codec)},
            "fingerprints": job.fingerprints,
            "options": job.plan()["options"],
        },
        "licences": parts.licences(),
    }


def describe_codec(codec: Codec) -> dict[str, Any]:
    """Return what a codec says about itself."""
    names = ("fingerprint", "n_units", "rate_hz", "sample_rate_hz", "folds_runs")
    return {name: getattr(codec, name) for name in names}


def page(job: Job, card: Mapping[str, Any], entries: Mapping[str, Any], corpus: Corpus) -> str:
    """Return ``README.md``: what the hub shows, and what tells ``datasets`` where the rows are."""
    numbers, made = card["numbers"], card["made_with"]
    split = job.options.split
    head = {"configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"{split}/*.parquet"}]}]}
    dropped = "".join(f"| {reason} | {n} | {REASONS.get(reason, '')} |\n" for reason, n in numbers["dropped"].items())
    flags = "".join(f"| {flag} | {n} | {ROW_FLAGS.get(flag, '')} |\n" for flag, n in numbers["flags"].items())
    licences = "".join(f"- {what}: {text}\n" for what, text in card["licences"].items())
    pictures = "".join(f"![{title}]({IMAGES}/{name})\n\n" for name, title in PICTURES.items())
    named = ", ".join(f"`{name}` (`{entry['formatting']}`)" for name, entry in entries.items())
    return (
        f"---\n{_yaml(head)}---\n\n# {job.options.name}\n\n"
        f"Speech as units of the codec `{made['codec']['name']}` ({made['codec']['fingerprint']},"
        f" {made['codec']['n_units']} units, {made['codec']['rate_hz']:g} a second"
        f"{', runs folded' if made['codec']['folds_runs'] else ''}), made by `slm prepare`.\n"
        f"In `dataset_info.json` beside this folder: {named}.\n\n"
        "## What it holds\n\n| | |\n|---|---|\n"
        f"| rows | {numbers['rows']} of {numbers['items']} items |\n"
        f"| speech | {numbers['hours']:.2f} hours, {numbers['utterances']} utterances of"
        f" {numbers['mean_seconds']:.2f} seconds on average |\n"
        f"| speakers | {numbers['speakers'] or 'not stated'} |\n"
        f"| languages | {', '.join(f'{name} ({n})' for name, n in numbers['languages'].items()) or 'not stated'} |\n"
        f"| words | {numbers['words']} |\n"
        f"| units | {numbers['units']}{_known(', {:.2f} a second', numbers['units_per_second'])} |\n"
        f"| vocabulary | {numbers['vocabulary_used']} of {numbers['vocabulary']} units are used"
        f"{_known(', perplexity {}', numbers['perplexity_of_units'])} |\n"
        f"| word times | {_word_times(job)}{_known(', mean score {}', numbers['mean_alignment'])} |\n\n"
        f"{pictures}"
        "## What was dropped\n\nEach is a line of `report.jsonl` with its name and what was wrong.\n\n"
        f"| reason | items | |\n|---|---|---|\n{dropped or '| none | 0 | |' + chr(10)}\n"
        "## What was noted\n\nA row lists its own in `flags`.\n\n"
        f"| flag | rows | the recording |\n|---|---|---|\n{flags}\n"
        f"## Terms\n\n{licences}"
    )


def _known(form: str, number: float | None) -> str:
    """Write a number into a form; nothing if it is not known."""
    return "" if number is None or not math.isfinite(number) else form.format(number)


def _word_times(job: Job) -> str:
    if job.options.align is None:
        return "those that came with the recordings, else guessed (flag `even`)"
    return f"from `{next(iter(job.options.align))}`"


def _yaml(head: Mapping[str, Any]) -> str:
    # JSON is YAML, and needs no other writer
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in head.items())
