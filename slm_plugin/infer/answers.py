"""Answers to spoken questions, written file by file, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from slm_plugin import card
from slm_plugin.errors import AudioError, DataError, VocabularyError
from slm_plugin.eval.spoken import split_answer
from slm_plugin.generation.model import Speaker, load_speaker
from slm_plugin.generation.protocol import Answer, Engine, Sampling
from slm_plugin.infer.options import InferOptions, SpokenData
from slm_plugin.infer.questions import open_data, question_units
from slm_plugin.speech.codecs import require_units
from slm_plugin.speech.protocol import Codec
from slm_plugin.vocabulary import strip_units, text_to_units, units_to_text
from slm_plugin.weights.durable import settle

MADE_BY = b"slm_infer"
"""Key of the Parquet metadata that says what a file of answers was made by."""


@dataclass(frozen=True)
class Done:
    """What became of one set of questions.

    Attributes:
        name: Folder of its answers.
        n_rows: Questions.
        n_failed: Questions whose recording could not be used; their ``error`` column says why.
        n_files: Files of answers.
        n_skipped: Files that were there already.
    """

    name: str
    n_rows: int
    n_failed: int
    n_files: int
    n_skipped: int


def answer_all(
    options: InferOptions, codec: Codec, make_engine: Callable[[], Engine], tell: Callable[[str], None]
) -> list[Done]:
    """Answer every set of questions, starting the engine only where something is left to do.

    Raises:
        DataError: A set cannot be loaded, or the output folder holds answers made otherwise.
        VocabularyError: Model and codec have different numbers of units.
    """
    speaker = load_speaker(Path(options.model), Path(options.adapter) if options.adapter else None)
    require_units(codec, options.codec, speaker.vocabulary.count if speaker.vocabulary else 0)
    opened = [(data, open_data(data)) for data in options.data]
    job = _Job(options, codec, speaker, make_engine)
    try:
        return [job.answer(data, rows, column, tell) for data, (rows, column) in opened]
    finally:
        job.close()


class _Job:
    def __init__(self, options: InferOptions, codec: Codec, speaker: Speaker, make: Callable[[], Engine]) -> None:
        self.options, self.codec, self.speaker, self._make = options, codec, speaker, make
        self._engine: Engine | None = None
        draws = options.sampling
        self.sampling = Sampling(
            draws.temperature, draws.top_p, draws.max_new_tokens, speaker.stop_ids, draws.seed, score=False
        )

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def answer(self, data: SpokenData, rows: Any, column: str, tell: Callable[[str], None]) -> Done:
        folder = Path(self.options.output) / data.folder
        folder.mkdir(parents=True, exist_ok=True)
        made_by = self._made_by(data, len(rows))
        n_failed = n_skipped = 0
        starts = range(0, len(rows), self.options.batch)
        for number, start in enumerate(starts):
            path = folder / f"part-{number:05d}.parquet"
            known = _read(path, made_by)
            if known is None:
                batch = [rows[position] for position in range(start, min(len(rows), start + self.options.batch))]
                known = self._answer_batch(batch, data, column, seed=self.options.sampling.seed + start)
                _write(path, known, made_by)
            else:
                n_skipped += 1
            n_failed += sum(error is not None for error in known["error"])
            tell(f"{data.folder}: {min(len(rows), start + self.options.batch)} of {len(rows)}")
        return Done(data.folder, len(rows), n_failed, len(starts), n_skipped)

    def _made_by(self, data: SpokenData, n_rows: int) -> str:
        """Return digits over everything that decides the answers."""
        known = {
            "model": card.fingerprint(Path(self.options.model)),
            "adapter": card.fingerprint(Path(self.options.adapter)) if self.options.adapter else None,
            "lora_scale": [self.options.lora_scale, self.options.scaled_modules],
            "codec": self.codec.fingerprint,
            "data": data.model_dump(exclude={"name"}),
            "rows": n_rows,
            "sampling": self.options.sampling.model_dump(),
            "batch": self.options.batch,
            "engine": self.options.engine,
            "vocoder": self.options.vocoder,
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]

    def _answer_batch(self, batch: Sequence[Any], data: SpokenData, column: str, seed: int) -> dict[str, list[Any]]:
        questions: list[list[int]] = []
        errors: list[str | None] = []
        for row in batch:
            try:
                found, error = question_units(row, column, data, self.codec), None
                if not found:
                    error = "the recording holds no speech."
            except (AudioError, DataError, VocabularyError) as problem:
                found, error = [], str(problem)
            questions.append(found)
            errors.append(error)
        asked = [number for number, error in enumerate(errors) if error is None]
        written: list[Answer | None] = [None] * len(batch)
        if asked:
            prompts = [self.speaker.prompt(units_to_text(questions[number])) for number in asked]
            self._engine = self._engine or self._make()
            found_answers = self._engine.generate(prompts, replace(self.sampling, seed=seed))
            for number, answer in zip(asked, found_answers, strict=True):
                written[number] = answer
        ours: dict[str, list[Any]] = {"question_units": questions, "error": errors, **self._columns(written)}
        kept = [name for name in batch[0] if name != column] if batch else []
        # a set may have columns of our names, such as the right answer in llama-questions
        renamed = {name: f"given_{name}" if name in ours else name for name in kept}
        return {renamed[name]: [_plain(row[name]) for row in batch] for name in kept} | ours

    def _columns(self, written: Sequence[Answer | None]) -> dict[str, list[Any]]:
        said = [self.speaker.answer(answer.ids) if answer is not None else () for answer in written]
        texts = [self.speaker.text(ids) for ids in said]
        parts = [split_answer(text) for text in texts]
        units = [text_to_units(text) for text in texts]
        columns: dict[str, list[Any]] = {
            "tokens": [list(answer.ids) if answer is not None else [] for answer in written],
            "finished": [answer is not None and answer.finished for answer in written],
            "text": [strip_units(text) for text in texts],
            "heard": [strip_units(part[0]) for part in parts],
            "answer": [strip_units(part[1]) for part in parts],
            "spoken": [strip_units(part[2]) for part in parts],
            "units": units,
        }
        if self.options.vocoder:
            columns["audio"] = [{"bytes": self._wav(found), "path": None} for found in units]
        return columns

    def _wav(self, units: Sequence[int]) -> bytes:
        import soundfile

        wave = self.codec.decode(units) if units else np.zeros(0, np.float32)
        file = io.BytesIO()
        soundfile.write(file, wave, self.codec.sample_rate_hz, format="WAV", subtype="PCM_16")
        return file.getvalue()


def _plain(value: Any) -> Any:
    """Return what Parquet holds: recordings beside the question lose what only a decoder can read."""
    return value if isinstance(value, str | int | float | bool | list | dict | bytes | None) else str(value)


def _write(path: Path, columns: dict[str, list[Any]], made_by: str) -> None:
    import datasets
    import pyarrow as arrow
    from pyarrow import parquet

    types = {"question_units": arrow.list_(arrow.int32()), "error": arrow.string()}
    types |= {"tokens": arrow.list_(arrow.int32()), "units": arrow.list_(arrow.int32())}
    types |= {"audio": arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})}
    # a batch of empty lists must be of the same type as its neighbours
    table = arrow.table({name: arrow.array(values, types.get(name)) for name, values in columns.items()})
    features = datasets.Features.from_arrow_schema(table.schema)
    if "audio" in columns:
        features["audio"] = datasets.Audio()
    table = table.replace_schema_metadata({**features.arrow_schema.metadata, MADE_BY: made_by.encode()})
    temporary = path.with_name(f".{path.name}.partial")
    try:
        parquet.write_table(table, temporary, compression="zstd")
        settle(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error}.") from None


def _read(path: Path, made_by: str) -> dict[str, list[Any]] | None:
    """Return the errors of a finished file; None where it is not there.

    Raises:
        DataError: It was made with other settings.
    """
    if not path.is_file():
        return None
    from pyarrow import parquet

    found = parquet.read_metadata(path).metadata or {}
    if found.get(MADE_BY, b"").decode() != made_by:
        raise DataError(f"{path} was written by another model or with other settings; take another output folder.")
    return {"error": parquet.read_table(path, columns=["error"])["error"].to_pylist()}
