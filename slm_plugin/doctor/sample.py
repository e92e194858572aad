"""What it takes to prepare a corpus, measured on a few of its items and carried over to all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from slm_plugin.plugins import Registry
from slm_plugin.prepare import options as prepare_options
from slm_plugin.prepare.corpora.protocol import Corpus, Item
from slm_plugin.prepare.job import make_job
from slm_plugin.prepare.parts import load_parts
from slm_plugin.prepare.statistics import count
from slm_plugin.prepare.worker import Worker

N_SAMPLED = 12
GB = 1e9


class Sample:
    """Evenly spaced items of a corpus, as a corpus."""

    def __init__(self, corpus: Corpus, n: int) -> None:
        n = min(n, len(corpus))
        self._corpus, self._numbers = corpus, [number * len(corpus) // n for number in range(n)]
        self.kind: Literal["speech", "chats"] = corpus.kind
        self.fingerprint, self.licence = corpus.fingerprint, corpus.licence

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Item:
        return self._corpus[self._numbers[index]]


def plan_corpus(path: Path, registry: Registry) -> Iterator[str]:
    """Prepare a few items into a temporary folder, and yield lines about all of them.

    Raises:
        SlmError: Keys or parts are wrong.
    """
    options = prepare_options.load([str(path)])
    parts = load_parts(options, registry)
    n_items = len(parts.corpus)
    sample: Any = Sample(parts.corpus, N_SAMPLED)
    some = replace(parts, corpus=sample)
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(options.model_copy(update={"output": folder}), some)
        worker = Worker(job, some)
        started = time.perf_counter()
        for shard in range(job.n_shards):
            worker.run(shard)
        took = time.perf_counter() - started
        found = count(job, parts.codec)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))
    seconds = float(found.seconds_N.sum())
    times = n_items / len(sample)
    yield f"{path.name}: {n_items:,} items, measured on {len(sample)} of them here; {found.n_rows} can be used"
    if not seconds:
        yield f"  none of them can be used: {', '.join(f'{reason} {n}' for reason, n in found.reasons.items())}"
        return
    yield f"  speech     about {times * seconds / 3600:.2f} hours, {times * found.counts_K.sum():,.0f} units"
    # a file of a few rows is mostly head: an upper bound
    yield f"  disk       at most {times * size / GB:.3f} GB in {options.folder}"
    yield (
        f"  time       about {times * took / 3600 / options.workers:.2f} hours with {options.workers} workers;"
        f" {seconds / took:.1f} seconds of speech a second each"
    )
