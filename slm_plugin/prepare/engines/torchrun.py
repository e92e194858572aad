"""The processes of ``torchrun``, on one machine or many with a common folder.

    torchrun --nproc-per-node 8 -m slm_plugin prepare libri.yaml

Rank r of n makes the shards r, r + n, r + 2n, ...; nothing is sent between the processes, so none can hang in
a collective. Rank 0 finishes when all files are there; torchrun ends all when one fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from slm_plugin.errors import DataError
from slm_plugin.prepare.job import Job
from slm_plugin.prepare.parts import Parts
from slm_plugin.prepare.worker import Outcome, Worker

POLL_SECONDS = 0.5


def started_by_torchrun() -> bool:
    """Say whether this process has a rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank() -> int:
    """Return the rank of this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def run(job: Job, parts: Parts, shards: Sequence[int], report: Callable[[Outcome], None]) -> None:
    """Make this rank's shards; rank 0 then waits for those of the others.

    Raises:
        DataError: The process was not started by torchrun.
    """
    if not started_by_torchrun():
        raise DataError("engine torchrun needs torchrun: torchrun --nproc-per-node N -m slm_plugin prepare FILE.yaml")
    n_ranks = int(os.environ["WORLD_SIZE"])
    _use_device()
    worker = Worker(job, parts)
    # by number and not by position: what is left differs between ranks that look at different moments
    for shard in shards:
        if shard % n_ranks == rank():
            report(worker.run(shard))
    if rank() != 0:
        return
    others = [shard for shard in shards if shard % n_ranks != 0]
    while others:
        done = [shard for shard in others if job.finished(shard)]
        for shard in done:
            report(Outcome(shard, len(job.items_of(shard))))
        others = [shard for shard in others if shard not in done]
        if others:
            time.sleep(POLL_SECONDS)


def _use_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
