"""Run several host configurations one after the other in the processes of one ``torchrun``.

Usage: ``torchrun --standalone --nproc_per_node 2 drive.py configurations.json``
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch


def main(path: str) -> None:
    torch.set_num_threads(1)
    # a resumed run of several processes reads its optimizer to "cpu:0", which torch does not know
    torch.serialization.register_package(
        0, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )
    from llamafactory.train.tuner import run_exp

    # the host collects garbage after every run: what was imported is no garbage, and most of what is looked through
    gc.collect()
    gc.freeze()
    # the host takes the processes apart after every run; the next run is for the same ones
    take_apart = torch.distributed.destroy_process_group
    torch.distributed.destroy_process_group = lambda *args: None
    for configuration in json.loads(Path(path).read_text(encoding="utf-8")):
        run_exp(configuration)
    # a process that ends while its group is in use is aborted
    torch.distributed.barrier()
    take_apart()


if __name__ == "__main__":
    main(sys.argv[1])
