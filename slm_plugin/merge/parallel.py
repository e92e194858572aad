"""Tensors merged side by side: one thread for each tensor, instead of all threads on each small step."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

MOST_WORKERS = 8
"""More tensors at once would cost memory and gain little: the disk and memory set the pace."""

Item = TypeVar("Item")


def side_by_side(
    items: Sequence[Item], produce: Callable[[Item], torch.Tensor]
) -> Iterator[tuple[Item, torch.Tensor]]:
    """Yield ``(item, produce(item))`` in order, several being produced at once.

    As many threads work as torch was given, 8 at most, each on an item of its own: threads that share the
    steps on one small piece wait for each other after every step, which costs more than the steps where
    the machine is busy. As many results as there are threads are held at most.

    Args:
        items: What to work on.
        produce: Makes a tensor, of any shape, of an item.

    Yields:
        Each item with its tensor, of the shape that ``produce`` gave it.
    """
    n_threads = torch.get_num_threads()
    n_workers = max(1, min(n_threads, MOST_WORKERS))
    with _one_thread_each(n_threads), ThreadPoolExecutor(n_workers) as pool:
        waiting: deque[tuple[Item, Future[torch.Tensor]]] = deque()
        left = iter(items)
        try:
            for item in left:
                waiting.append((item, pool.submit(produce, item)))
                if len(waiting) >= n_workers:
                    yield _next(waiting)
            while waiting:
                yield _next(waiting)
        finally:
            for _, future in waiting:
                future.cancel()


def _next(waiting: deque[tuple[Item, Future[torch.Tensor]]]) -> tuple[Item, torch.Tensor]:
    item, future = waiting.popleft()
    return item, future.result()


@contextlib.contextmanager
def _one_thread_each(n_before: int) -> Iterator[None]:
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_before)
