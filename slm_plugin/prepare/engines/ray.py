"""Ray Data: shards as rows, workers as actors, on this machine or on a cluster with a common folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from slm_plugin.errors import DataError
from slm_plugin.prepare.job import Job
from slm_plugin.prepare.parts import Parts
from slm_plugin.prepare.worker import Outcome, Worker

INSTALL = "pip install 'slm-plugin[ray]'"


class ShardActor:
    """What an actor does with a batch of one shard number.

    Args:
        job: The job.
        folder: What its relative paths are relative to.
    """

    def __init__(self, job: Job, folder: str) -> None:
        os.chdir(folder)
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the shards of a batch."""
        done = [self._worker.run(int(shard)) for shard in batch["shard"]]
        return {key: [getattr(outcome, key) for outcome in done] for key in ("shard", "n_items", "n_dropped", "again")}


def run(job: Job, parts: Parts, shards: Sequence[int], report: Callable[[Outcome], None]) -> None:
    """Make shards with ``job.options.workers`` actors; joins the cluster of ``RAY_ADDRESS``, else starts one here.

    Raises:
        DataError: Ray is not installed, or an actor failed.
    """
    if not shards:
        return
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError:
        raise DataError(f"engine ray needs Ray, which is not installed; {INSTALL}") from None
    mine = not ray.is_initialized()
    if mine:
        ray.init(num_cpus=job.options.workers if "RAY_ADDRESS" not in os.environ else None, include_dashboard=False)
    try:
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
        done = rows.map_batches(
            ShardActor,
            fn_constructor_args=(job, os.getcwd()),
            batch_size=1,
            concurrency=job.options.workers,
        )
        for row in done.iter_rows():
            report(Outcome(**row))
    except RayError as error:
        # the last line of the remote traceback is what the worker said
        text = str(error).strip().splitlines()[-1]
        raise DataError(f"an actor of Ray failed: {text} Finished files are kept: start it again to go on.") from None
    finally:
        if mine:
            ray.shutdown()
