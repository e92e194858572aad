"""What a finished data set holds, counted over its files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from slm_plugin.errors import DataError
from slm_plugin.prepare.filters import ROW_FLAGS
from slm_plugin.prepare.job import Job
from slm_plugin.speech.protocol import Codec


@dataclass
class Statistics:
    """Counts over all rows.

    Attributes:
        n_items: Items of the corpus.
        n_rows: Rows kept.
        seconds_N: Length of each utterance; two a row for chats.
        counts_K: How often each unit occurs.
        speakers: Utterances of each speaker.
        languages: Rows of each language.
        flags: Rows with each flag; all of :data:`ROW_FLAGS`, also those that none has.
        dropped: What was left out, ``{"name", "reason", "message", "shard"}`` each.
        n_words: Words of all texts.
        alignment: Mean of the aligner's scores; None where it has none.
    """

    n_items: int
    counts_K: np.ndarray
    n_rows: int = 0
    seconds_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    speakers: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    flags: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROW_FLAGS, 0))
    dropped: list[dict[str, Any]] = field(default_factory=list)
    n_words: int = 0
    alignment: float | None = None

    @property
    def reasons(self) -> dict[str, int]:
        """How many items were dropped for each reason, the most frequent first."""
        return dict(
            sorted(Counter(row["reason"] for row in self.dropped).items(), key=lambda pair: (-pair[1], pair[0]))
        )

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the card."""
        n_units, seconds = int(self.counts_K.sum()), float(self.seconds_N.sum(dtype=np.float64))
        shares = self.counts_K[self.counts_K > 0] / max(1, n_units)
        return {
            "items": self.n_items,
            "rows": self.n_rows,
            "dropped": self.reasons,
            "utterances": len(self.seconds_N),
            "hours": round(seconds / 3600, 4),
            "mean_seconds": round(seconds / max(1, len(self.seconds_N)), 3),
            "speakers": len(self.speakers),
            "languages": dict(sorted(self.languages.items())),
            "words": self.n_words,
            "units": n_units,
            "units_per_second": round(n_units / seconds, 3) if seconds else None,
            "vocabulary": len(self.counts_K),
            "vocabulary_used": int((self.counts_K > 0).sum()),
            "perplexity_of_units": round(float(np.exp(-(shares * np.log(shares)).sum())), 1) if n_units else None,
            "flags": self.flags,
            "mean_alignment": None if self.alignment is None else round(self.alignment, 4),
        }


def count(job: Job, codec: Codec) -> Statistics:
    """Count over the files of a job.

    Raises:
        DataError: A file is missing or unreadable.
    """
    found = Statistics(job.n_items, np.zeros(codec.n_units, np.int64))
    prefixes = ("",) if job.kind == "speech" else ("question_", "answer_")
    seconds: list[np.ndarray] = []
    scores: list[float] = []
    for shard in range(job.n_shards):
        about = job.about(shard)
        if about is None:
            raise DataError(f"{job.path(shard)} is missing; run the same command again.")
        found.dropped.extend({**row, "shard": shard} for row in about["dropped"])
        if not about["n_rows"]:
            continue
        table = pq.read_table(job.path(shard))
        found.n_rows += len(table)
        found.languages.update(filter(None, table["language"].to_pylist()))
        for flag in pc.list_flatten(table["flags"]).to_pylist():
            found.flags[flag] = found.flags.get(flag, 0) + 1
        found.speakers.update(name for row in table["speaker"].to_pylist() for name in row.split(" > ") if name)
        for prefix in prefixes:
            units = pc.list_flatten(table[f"{prefix}units"]).to_numpy()
            found.counts_K += np.bincount(units, minlength=codec.n_units)
            seconds.append(table[f"{prefix}seconds"].to_numpy())
            found.n_words += int(pc.sum(pc.list_value_length(table[f"{prefix}spans"])).as_py() or 0)
            scores.extend(pc.drop_null(table[f"{prefix}alignment"]).to_pylist())
    found.seconds_N = np.concatenate(seconds) if seconds else found.seconds_N
    found.alignment = float(np.mean(scores)) if scores else None
    return found
