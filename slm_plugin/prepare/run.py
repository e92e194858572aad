"""Make a data set: plan, missing shards, description; every step may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from slm_plugin.plugins import Registry
from slm_plugin.prepare.engines import local, ray, torchrun
from slm_plugin.prepare.finish import finish
from slm_plugin.prepare.job import Job, make_job, start
from slm_plugin.prepare.options import PrepareOptions
from slm_plugin.prepare.parts import load_parts
from slm_plugin.prepare.progress import Progress
from slm_plugin.prepare.recordings import unsettled
from slm_plugin.prepare.statistics import Statistics

ENGINES: Mapping[str, Callable[..., None]] = {"local": local.run, "torchrun": torchrun.run, "ray": ray.run}


def prepare(options: PrepareOptions, registry: Registry, progress: Progress) -> tuple[Job, Statistics | None]:
    """Make what is missing of a data set.

    Returns:
        The job, and its counts; None in the processes of torchrun that do not finish it.

    Raises:
        SlmError: Keys, parts or folder are wrong, or the synthesiser is away.
    """
    engine = options.engine
    if engine == "auto":
        engine = "torchrun" if torchrun.started_by_torchrun() else "local"
    parts = load_parts(options, registry)
    job = make_job(options, parts)
    start(job)
    for note in getattr(parts.corpus, "notes", ()):
        progress.note(note)
    for shard in range(job.n_shards):
        if reasons := unsettled(job, parts, shard):
            progress.note(f"shard {shard} is made again: {', '.join(reasons[:5])}{', ...' if reasons[5:] else ''}")
            job.mark(shard).unlink(missing_ok=True)
    missing = [shard for shard in range(job.n_shards) if not job.finished(shard)]
    n_missing = sum(len(job.items_of(shard)) for shard in missing)
    with progress.over(options.name, job.n_items, job.n_items - n_missing):
        ENGINES[engine](job, parts, missing, progress.done)
    if engine == "torchrun" and torchrun.rank() != 0:
        return job, None
    return job, finish(job, parts)
