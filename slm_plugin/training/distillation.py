"""KL divergence between two models' next-token distributions, in memory that does not grow with the vocabulary.

Shapes: ``N`` tokens, ``V`` words of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

CHUNK_TOKENS = 256


class _SummedKl(torch.autograd.Function):
    """Sum over tokens of ``KL(teacher || student)``; its gradient is computed on the way forward, chunk by chunk."""

    @staticmethod
    def forward(
        ctx: Any, student_NV: torch.Tensor, teacher_NV: torch.Tensor, temperature: float, chunk: int
    ) -> torch.Tensor:
        wide = torch.promote_types(student_NV.dtype, torch.float32)
        gradient_NV = torch.empty_like(student_NV)
        total = torch.zeros((), dtype=wide, device=student_NV.device)
        for start in range(0, len(student_NV), chunk):
            rows = slice(start, start + chunk)
            log_student = functional.log_softmax(student_NV[rows].to(wide) / temperature, dim=-1)
            log_teacher = functional.log_softmax(teacher_NV[rows].to(wide) / temperature, dim=-1)
            teacher = log_teacher.exp()
            total += (teacher * (log_teacher - log_student)).sum()
            gradient_NV[rows] = (log_student.exp() - teacher) / temperature
        ctx.save_for_backward(gradient_NV)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        (gradient_NV,) = ctx.saved_tensors
        return gradient_NV * upstream.to(gradient_NV.dtype), None, None, None


def summed_kl(
    student_NV: torch.Tensor, teacher_NV: torch.Tensor, temperature: float = 1.0, chunk: int = CHUNK_TOKENS
) -> torch.Tensor:
    """Return ``sum_n KL(softmax(teacher_n / T) || softmax(student_n / T))`` in nats.

    Differentiable in the student only: ``d/dz = (softmax(z / T) - softmax(teacher / T)) / T``. Softmaxes are
    taken in fp32 (fp64 for fp64), ``chunk`` tokens at a time, so beside the logits only one more tensor of
    their size is made, their gradient.

    Source: Hinton et al. 2015, arXiv 1503.02531, section 2.

    Args:
        student_NV: Logits of N tokens over V words.
        teacher_NV: Logits of the same tokens.
        temperature: T.
        chunk: Tokens per chunk.

    Returns:
        A scalar, fp32 (fp64 for fp64).
    """
    return _SummedKl.apply(student_NV, teacher_NV, temperature, chunk)
