"""Losses and gradients by torch's own functions and autograd, schedules by its own schedulers, in float64."""

from __future__ import annotations

import torch
from torch.nn import functional

from golden.entry import Entry

STUDENT = [[0.5, -1.0, 2.0], [1.5, 0.0, -0.5], [0.0, 0.25, 0.75]]
TEACHER = [[1.0, 0.0, 1.0], [0.5, 0.5, -2.0], [2.0, -1.0, 0.5]]


def distilled(student: list[list[float]], teacher: list[list[float]], temperature: float) -> dict[str, object]:
    """Return the divergence summed over tokens, and its gradient by the student's logits."""
    logits = torch.tensor(student, dtype=torch.float64, requires_grad=True)
    target = torch.log_softmax(torch.tensor(teacher, dtype=torch.float64) / temperature, -1)
    found = functional.kl_div(torch.log_softmax(logits / temperature, -1), target, reduction="sum", log_target=True)
    found.backward()
    assert logits.grad is not None
    return {"value": found.item(), "gradient": logits.grad.tolist()}


def anchored_answers(
    student: list[list[float]],
    teacher: list[list[float]],
    ids: list[int],
    labels: list[int],
    strength: float,
    temperature: float,
) -> float:
    """Return ``strength * T^2`` times the mean divergence of the answer tokens, those with a label from the second on.

    Args:
        student: The next token's logits after each token of the vocabulary, now.
        teacher: The same at the stage's start.
        ids: The sequence.
        labels: Its labels; -100 where a token is no answer.
        strength: Weight of the term.
        temperature: T.
    """
    before = [token for token, label in zip(ids, labels[1:], strict=False) if label != -100]
    rows = [[table[token] for token in before] for table in (student, teacher)]
    ours, theirs = (torch.log_softmax(torch.tensor(row, dtype=torch.float64) / temperature, -1) for row in rows)
    mean = functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
    return float(strength * temperature**2 * mean)


def pulled(now: list[float], start: list[float], strength: float) -> dict[str, object]:
    """Return the penalty ``strength * sum((p - p0)^2)`` and its gradient."""
    weights = torch.tensor(now, dtype=torch.float64, requires_grad=True)
    found = strength * functional.mse_loss(weights, torch.tensor(start, dtype=torch.float64), reduction="sum")
    found.backward()
    assert weights.grad is not None
    return {"value": found.item(), "gradient": weights.grad.tolist()}


def scheduled(shape: str, start: float, end: float, steps: int) -> list[float]:
    """Return the factor at ``steps + 1`` even moments, which torch's schedulers give a learning rate.

    Args:
        shape: ``linear`` or ``cosine``.
        start: Factor at the beginning.
        end: Factor at the end.
        steps: Moments after the first.
    """
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0 if shape == "linear" else start)
    if shape == "linear":
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, start, end, total_iters=steps)
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=end)
    found = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        found.append(scheduler.get_last_lr()[0])
    return found


_HINTON = "arXiv 1503.02531, section 2"
_ADDED = "docs/methods/replay.md; an addition to arXiv 2505.17496"
ENTRIES = (
    Entry(
        "KL of distillation",
        _HINTON,
        "torch kl_div, autograd",
        {"student": STUDENT, "teacher": TEACHER, "temperature": 2.0},
        distilled,
    ),
    Entry(
        "KL anchor",
        f"{_HINTON}; arXiv 1606.09282",
        "torch kl_div",
        {
            "student": STUDENT,
            "teacher": TEACHER,
            "ids": [0, 2, 1, 0, 1],
            "labels": [-100, -100, 1, -100, 1],
            "strength": 0.7,
            "temperature": 2.0,
        },
        anchored_answers,
    ),
    Entry(
        "L2 anchor",
        "arXiv 1802.01483",
        "torch mse_loss, autograd",
        {"now": [1.5, -2.0, 0.25], "start": [1.0, -0.5, 0.25], "strength": 0.3},
        pulled,
    ),
    Entry(
        "linear schedule of replay",
        _ADDED,
        "torch LinearLR",
        {"shape": "linear", "start": 1.0, "end": 0.2, "steps": 4},
        scheduled,
    ),
    Entry(
        "cosine schedule of replay",
        _ADDED,
        "torch CosineAnnealingLR",
        {"shape": "cosine", "start": 1.0, "end": 0.2, "steps": 6},
        scheduled,
    ),
)
