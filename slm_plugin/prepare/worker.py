"""Makes the files of a data set, one shard at a time; every engine runs this and nothing else.

A shard's bytes depend on the plan and the shard's number alone: not on the process, on the order, or on what
was made before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from slm_plugin.alignment.known import EvenAligner, SourceAligner
from slm_plugin.alignment.protocol import Alignment
from slm_plugin.errors import AlignmentError, DataError, EngineError
from slm_plugin.eval.match import matches
from slm_plugin.plugins import Registry
from slm_plugin.prepare.corpora.listing import Listing
from slm_plugin.prepare.corpora.protocol import ChatItem, Item, SpokenItem, Unusable
from slm_plugin.prepare.filters import EVEN, NOT_SPOKEN, DroppedError
from slm_plugin.prepare.job import Job, make_job
from slm_plugin.prepare.layout import lay_out
from slm_plugin.prepare.parts import Parts, load_parts
from slm_plugin.prepare.recordings import Seen, look_at, machine_fault, write_states
from slm_plugin.prepare.rows import schema, write_shard
from slm_plugin.prepare.utterances import Ready, check_text, said, spoken
from slm_plugin.prepare.voices.protocol import Speaker
from slm_plugin.records import Units
from slm_plugin.speech.protocol import encode_batch


@dataclass(frozen=True)
class Outcome:
    """What became of a shard.

    Attributes:
        shard: Its number.
        n_items: Items looked at.
        n_dropped: Items left out.
        again: Whether the file was there already.
    """

    shard: int
    n_items: int
    n_dropped: int = 0
    again: bool = False


@dataclass
class _Waiting:
    """Items whose sound waits for the codec."""

    items: list[tuple[Item, list[Ready]]] = field(default_factory=list)
    seconds: float = 0.0


class Worker:
    """Everything that a process needs, loaded once.

    Args:
        job: The job; the parts found here must be those that it was planned with.
        parts: The parts, where they are loaded already.

    Raises:
        DataError: Codec, corpus, aligner or voice are others on this machine.
    """

    def __init__(self, job: Job, parts: Parts | None = None) -> None:
        self._job = job
        self._parts = parts or load_parts(job.options, Registry.load())
        if make_job(job.options, self._parts) != job:
            raise DataError(
                f"this machine has other parts than {job.options.folder} was planned with:"
                f" {self._parts.fingerprints()}, planned {job.fingerprints}."
            )
        self._seen: dict[int, Seen] = {}
        self._source, self._even = SourceAligner(SourceAligner.Options()), EvenAligner(EvenAligner.Options())

    def run(self, shard: int) -> Outcome:
        """Make one file, unless it is there.

        Raises:
            EngineError: The synthesiser is away.
        """
        numbers = self._job.items_of(shard)
        if self._job.finished(shard):
            return Outcome(shard, len(numbers), again=True)
        self._seen = {}
        rows: list[Mapping[str, Any]] = []
        dropped: list[dict[str, str]] = []
        with ExitStack() as stack:
            speaker = stack.enter_context(self._parts.voice.session()) if self._parts.voice else None
            for item, found in self._encoded(numbers, speaker):
                try:
                    if isinstance(found, DroppedError):
                        raise found
                    rows.append(self._row(item, *found))
                except DroppedError as reason:
                    dropped.append({"name": item.name, "reason": reason.reason, "message": str(reason)})
        about = {"plan": self._job.digest, "shard": shard, "n_items": len(numbers), "dropped": dropped}
        if isinstance(self._parts.corpus, Listing):
            about["recordings"] = [seen.digest if (seen := self._seen.get(number)) else None for number in numbers]
        columns = schema(self._job.kind, self._parts.codec)
        write_shard(self._job.path(shard), self._job.mark(shard), rows, columns, self._parts.codec, about)
        if self._seen:
            states = [seen.state if (seen := self._seen.get(number)) else None for number in numbers]
            write_states(self._job.mark(shard), states)
        return Outcome(shard, len(numbers), len(dropped))

    def _encoded(
        self, numbers: range, speaker: Speaker | None
    ) -> Iterator[tuple[Item, tuple[list[Ready], list[Units]] | DroppedError]]:
        """Yield every item with its utterances and their units, or why it is dropped; each kind in order."""
        waiting = _Waiting()
        for number in numbers:
            try:
                item = self._parts.corpus[number]
            except Exception as error:
                # a damaged row of somebody's table is no reason to lose all others
                yield Unusable(f"item-{number}", "error", ""), _dropped(error)
                continue
            try:
                ready = self._ready(number, item, speaker)
            except DroppedError as reason:
                yield item, reason
                continue
            waiting.items.append((item, ready))
            waiting.seconds += sum(len(one.sound.wave_N) for one in ready) / self._parts.codec.sample_rate_hz
            if waiting.seconds >= self._job.options.batch_seconds:
                yield from self._flush(waiting)
        yield from self._flush(waiting)

    def _ready(self, number: int, item: Item, speaker: Speaker | None) -> list[Ready]:
        rate_hz, policy = self._parts.codec.sample_rate_hz, self._job.options.audio
        if isinstance(item, Unusable):
            raise DroppedError(item.reason, item.message)
        drop = self._job.options.drop
        for text in (item.text,) if isinstance(item, SpokenItem) else (item.question, item.answer):
            check_text(text)
            drop.check_text(text)
        if (seen := look_at(item)) is not None:
            self._seen[number] = seen
        try:
            if isinstance(item, SpokenItem):
                ready = spoken(item, rate_hz, policy)
            else:
                assert speaker is not None
                assert self._parts.voice is not None
                ready = said(item, self._parts.voice, speaker, rate_hz, policy)
            for one in ready:
                drop.check_flags(one.sound.flags)
            return ready
        except (DroppedError, EngineError):
            raise
        except Exception as error:
            # whatever a decoder or a plugin stumbles over is a row in the report, never the end of the run
            raise _dropped(error) from error

    def _flush(self, waiting: _Waiting) -> Iterator[tuple[Item, tuple[list[Ready], list[Units]] | DroppedError]]:
        items, waiting.items, waiting.seconds = waiting.items, [], 0.0
        waves = [one.sound.wave_N for _, ready in items for one in ready]
        try:
            encoded: Sequence[Units | Exception] = encode_batch(self._parts.codec, waves)
        except Exception:
            encoded = [self._alone(wave_N) for wave_N in waves]
        position = 0
        for item, ready in items:
            units = encoded[position : position + len(ready)]
            position += len(ready)
            failed = next((one for one in units if isinstance(one, Exception)), None)
            if failed is not None:
                yield item, _dropped(failed)
            else:
                yield item, (ready, [one for one in units if isinstance(one, Units)])

    def _alone(self, wave_N: Any) -> Units | Exception:
        """Encode one wave of a batch that failed, to find out which it was."""
        try:
            return encode_batch(self._parts.codec, [wave_N])[0]
        except Exception as error:
            return error

    def _row(self, item: Item, ready: list[Ready], units: list[Units]) -> dict[str, Any]:
        if isinstance(item, ChatItem):
            question, answer = (
                self._columns(item.name, prefix, one, found)
                for prefix, one, found in zip(("question_", "answer_"), ready, units, strict=True)
            )
            flags = sorted({*question.pop("flags"), *answer.pop("flags")})
            speaker = f"{ready[0].speaker} > {ready[1].speaker}"
            if item.short and not matches(item.answer, item.short, "contains"):
                self._job.options.drop.check_flags((NOT_SPOKEN,))
                flags = sorted({*flags, NOT_SPOKEN})
            short = {"answer": next(iter(item.short), None), "answers": list(item.short) if item.short[1:] else None}
            row = {**question, **answer, **short, "speaker": speaker, "language": item.language, "flags": flags}
        else:
            assert isinstance(item, SpokenItem)
            row = self._columns(item.name, "", ready[0], units[0])
            row |= {"speaker": item.speaker, "language": item.language}
        return {"id": item.name, **row}

    def _columns(self, name: str, prefix: str, one: Ready, units: Units) -> dict[str, Any]:
        if not units.values:
            raise DroppedError("no_units", f"{one.sound.seconds:.2f} seconds of sound give no units.")
        options, codec = self._job.options, self._parts.codec
        options.drop.check_units(len(units.values), len(one.words.pieces))
        aligned, guessed = self._align(f"{name}{'-' + prefix.rstrip('_') if prefix else ''}", one)
        options.drop.check_flags((EVEN,) if guessed else ())
        segments = lay_out(
            f"{name}/{prefix}", one.text, aligned.words, one.words.joiner, units, codec, options.interleave,
            options.seed, self._parts.tokenizer,
        )  # fmt: skip
        columns: dict[str, Any] = {
            "text": one.text,
            "units": units.values,
            "words": [{"text": segment.text, "units": segment.units} for segment in segments],
            # times that are not known are null, not NaN
            "spans": [
                {"word": span.word, "start_s": _finite(span.start_s), "end_s": _finite(span.end_s)}
                for span in aligned.words
            ],
            "seconds": one.sound.seconds,
            "alignment": aligned.score,
        }
        if units.durations is not None:
            columns["durations"] = units.durations
        flags = sorted({*one.sound.flags, *({EVEN} if guessed else ())})
        return {f"{prefix}{column}": value for column, value in columns.items()} | {"flags": flags}

    def _align(self, name: str, one: Ready) -> tuple[Alignment, bool]:
        """Return the words in time, and whether the times are a guess."""
        aligner = self._parts.aligner or (self._source if one.known else self._even)
        rate_hz = self._parts.codec.sample_rate_hz
        try:
            found = aligner.align(name, one.sound.wave_N, rate_hz, one.words.pieces, one.known)
        except AlignmentError as error:
            raise DroppedError("alignment", str(error)) from None
        except Exception as error:
            raise _dropped(error) from error
        return found, not any(math.isfinite(span.start_s) for span in found.words)


def _dropped(error: Exception) -> DroppedError:
    return machine_fault(error) or DroppedError("error", f"{type(error).__name__}: {error}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
