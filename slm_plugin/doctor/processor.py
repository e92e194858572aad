"""How fast a CPU trains, from the speed that it has in a matrix product and in an addition.

``seconds = tokens * (share * operations / rate + passes * value seconds * layers * width)``: matrix products, and
what is done value by value between them. Both constants are fitted to the runs of ``benchmarks/plan.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from slm_plugin.doctor.estimate import Training, needs

SIZE = 768
"""Rows and columns of the matrices that are multiplied."""

N_VALUES = 1 << 23
"""Values that are added: 32 MiB, allocated from the system each time, as the values of a training are."""

MATMUL_SHARE = {"float32": 1.11, "bfloat16": 1.53}
"""Time of the matrix products of a training over that at the measured rate; fitted."""

PASSES = 58.0
"""Additions that what is done between matrix products takes as long as, for each value of width and layer; fitted."""


@dataclass(frozen=True)
class Processor:
    """A CPU in one type of numbers, with the threads that torch uses.

    Attributes:
        dtype: ``float32`` or ``bfloat16``.
        rate: Operations of a matrix product per second.
        value_seconds: Seconds of the addition of one value.
        threads: Threads.
    """

    dtype: str
    rate: float
    value_seconds: float
    threads: int

    def seconds(self, training: Training, tokens: float) -> float:
        """Return how long a training on so many tokens takes, in seconds."""
        values = training.shapes.layers * training.shapes.hidden
        products = MATMUL_SHARE[self.dtype] * needs(training).operations / self.rate
        return tokens * (products + PASSES * self.value_seconds * values)


def measure(bf16: bool) -> Processor:
    """Return the speed of this CPU; takes 0.3 s beside the import of torch."""
    import torch

    dtype = torch.bfloat16 if bf16 else torch.float32
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    values = torch.ones(N_VALUES)
    threads = torch.get_num_threads()
    product_s = _best(lambda: torch.mm(matrix, matrix), threads)
    addition_s = _best(lambda: torch.add(values, values), threads)
    name = str(dtype).removeprefix("torch.")
    return Processor(name, 2.0 * SIZE**3 / product_s, addition_s / N_VALUES, threads)


def _best(run: Callable[[], object], threads: int) -> float:
    """Return the shortest of some runs in seconds; of the processor for one thread, where other work counts less."""
    clock = time.process_time if threads == 1 else time.perf_counter
    found = []
    for _ in range(6):
        begin = clock()
        run()
        found.append(clock() - begin)
    return max(min(found), 1e-9)
