"""Write the data of the tiny world: speak the script with espeak-ng and turn it into units.

    python examples/tiny/make_world.py                       # over the shipped data, same bytes again
    python examples/tiny/make_world.py --folder /tmp/world   # elsewhere
    python examples/tiny/make_world.py --lines 400           # only the beginning: evaluation questions
    python examples/tiny/make_world.py --fit                 # fit a new codec first

The same version of espeak-ng gives the same bytes. Nothing else is needed than
``pip install espeakng-loader``.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from pathlib import Path

from slm_plugin.records import Utterance
from slm_plugin.speech.mel_kmeans import MelKmeansCodec, MelKmeansSettings, load_tiny
from slm_plugin.speech.mel_kmeans_fit import fit
from world import rows, text
from world.facts import Fact, all_facts
from world.files import write_lines, write_parquet, write_wave
from world.script import SEED, Line, lines
from world.speech import Spoken, at_rate, encode, speak

HERE = Path(__file__).parent
CODEC = Path(__file__).parents[2] / "slm_plugin" / "speech" / "tiny_codec"
N_UNITS = 100
N_FITTED_ON = 600
N_TEXT_ROWS = 40_000
N_UNSEEN_INSTRUCTIONS = 200


def main() -> None:
    """Write every file of the world."""
    parser = argparse.ArgumentParser(description="Write the data of the tiny world.")
    parser.add_argument("--folder", type=Path, default=HERE, help="where data/ and audio/ go")
    parser.add_argument("--lines", type=int, default=None, help="speak only the first lines of the script")
    parser.add_argument("--fit", action="store_true", help="fit the codec `tiny` anew and save it first")
    options = parser.parse_args()
    facts = all_facts()
    script = lines(facts)[: options.lines]
    recordings = list(speak(script))
    if options.fit:
        fit_codec(recordings).save(CODEC)
    codec = load_tiny()
    spoken = [encode(line, utterance, codec) for line, utterance in recordings]
    data, audio = options.folder / "data", options.folder / "audio"
    for folder in (data, audio):
        folder.mkdir(parents=True, exist_ok=True)
    counts = {**write_text(data, facts), **write_speech(data, facts, spoken)}
    counts["audio"] = write_samples(audio, recordings, facts)
    for name, count in counts.items():
        print(f"{name}: {count} rows")


def fit_codec(recordings: Iterable[tuple[Line, Utterance]]) -> MelKmeansCodec:
    """Fit the codec on the first training utterances."""
    settings = MelKmeansSettings()
    training = [utterance for line, utterance in recordings if line.part == "utterance"][:N_FITTED_ON]
    return fit([at_rate(item, settings.sample_rate_hz) for item in training], N_UNITS, settings, SEED)


def write_text(data: Path, facts: list[Fact]) -> dict[str, int]:
    """Write the base model's text, and the questions that test it."""
    rng = random.Random(SEED)
    training = list(text.mixture(facts, N_TEXT_ROWS, rng))
    seen = {row["input"] for row in training}
    questions = [{"input": question, "output": fact.answer} for fact in facts for question in fact.questions]
    unseen = text.unseen_instructions(seen, N_UNSEEN_INSTRUCTIONS, rng)
    return {
        "text": write_parquet(data / "text.parquet", training),
        "eval_text_qa": write_lines(data / "eval_text_qa.jsonl", questions),
        "eval_instructions": write_lines(data / "eval_instructions.jsonl", unseen),
    }


def write_speech(data: Path, facts: list[Fact], spoken: list[Spoken]) -> dict[str, int]:
    """Write the parts of the script that were spoken to their end, training sets and evaluation sets."""
    parts: dict[str, list[Spoken]] = {}
    for item in spoken:
        parts.setdefault(item.line.part, []).append(item)
    if spoken[-1].line.part != "answer":
        parts.pop(spoken[-1].line.part)
    rng = random.Random(SEED)
    counts = {}
    if "heard" in parts:
        heard = rows.utterance_rows(parts["heard"], rng)
        counts["eval_speech"] = write_lines(data / "eval_speech.jsonl", heard)
    if "asked" in parts:
        for name, held_out in (("eval_sqa_heard", False), ("eval_sqa_unheard", True)):
            asked = rows.question_rows(parts["asked"], facts, held_out)
            counts[name] = write_lines(data / f"{name}.jsonl", asked)
    if "template" in parts:
        counts["templates"] = write_lines(data / "templates.jsonl", rows.template_rows(parts["template"]))
    if "utterance" in parts:
        counts["speech"] = write_parquet(data / "speech.parquet", rows.utterance_rows(parts["utterance"], rng))
    if "answer" in parts:
        counts["sqa"] = write_parquet(data / "sqa.parquet", rows.answer_rows(parts["question"], parts["answer"]))
    return counts


def write_samples(audio: Path, recordings: list[tuple[Line, Utterance]], facts: list[Fact]) -> int:
    """Write a few recordings of questions and utterances, to be listened to and asked."""
    wanted = [(line, utterance) for line, utterance in recordings if line.part == "asked"]
    unheard = [pair for pair in wanted if facts[pair[0].fact].held_out and pair[0].text.startswith("what")]
    chosen = [*unheard[:2], *unheard[-2:], *[pair for pair in recordings if pair[0].part == "heard"][:2]]
    for line, utterance in chosen:
        path = audio / f"{line.text.replace(' ', '_')}.wav"
        write_wave(path, utterance.wave_N, utterance.sample_rate_hz)
    return len(chosen)


if __name__ == "__main__":
    main()
