"""Claim: the L2 anchor costs at most 5 % of an optimizer step, a fraction of what the reference's way costs.

One process trains one model in turn without a penalty, with ``l2_anchor``, and in the reference's way: the
state dict copied to the CPU at the start, moved to the device in every micro-batch, and the sum of squares
differentiated by autograd. The model is a random Llama of about 40 M weights, all of which train; a step is
``--accumulate`` micro-batches of ``--batch`` x ``--length`` tokens, forward and backward, clipping and AdamW.
The penalty's own work is timed inside the step (ours: the hook before the optimizer's step; the reference:
the copies, the sum and its backward pass), because differences of whole steps are noise beside it. The three
ways alternate step by step and medians count. Times on the CPU are of the processor, because the wall clock
also measures who else is busy. Exits with 1 where ours costs more than the budget.

    python benchmarks/l2_anchor.py [--steps 5] [--batch 4] [--length 512] [--accumulate 2] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from slm_plugin.mitigations.l2_anchor import L2Anchor
from slm_plugin.records import StageRun

BUDGET_PERCENT = 5.0
STRENGTH = 1e-3
WAYS = ("without", "ours", "reference")


def make_model(device: str) -> LlamaForCausalLM:
    """Make a random Llama of about 40 M weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16_000,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(device).train()


class Trial:
    """One way of training, with a model and an optimizer of its own."""

    def __init__(self, way: str, device: str, shape: tuple[int, int], accumulate: int) -> None:
        self.way, self.device, self.shape, self.accumulate = way, device, shape, accumulate
        self.model = make_model(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.draw = torch.Generator().manual_seed(0)
        self.penalty_seconds = 0.0
        if way == "ours":
            anchor = L2Anchor(L2Anchor.Options(strength=STRENGTH))
            anchor.slm_stage_start(model=self.model)
            run = StageRun("asr", 0, Path(tempfile.gettempdir()))
            weights = list(self.model.parameters())

            def add(*_: object) -> None:
                begin = self.clock()
                anchor.slm_extra_gradient(run=run, parameters=weights)
                self.penalty_seconds += self.clock() - begin

            self.optimizer.register_step_pre_hook(add)
        elif way == "reference":
            self.start = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def clock(self) -> float:
        """Return the seconds by now, all work done."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def step(self) -> tuple[float, float]:
        """Train one optimizer step and return its seconds, and those of the penalty among them."""
        self.penalty_seconds = 0.0
        begin = self.clock()
        for _ in range(self.accumulate):
            ids = torch.randint(0, 16_000, self.shape, generator=self.draw).to(self.device)
            loss = self.model(input_ids=ids, labels=ids).loss
            (loss / self.accumulate).backward()
            if self.way == "reference":
                before = self.clock()
                penalty = torch.zeros((), device=self.device)
                for name, weight in self.model.named_parameters():
                    penalty = penalty + (weight - self.start[name].to(self.device)).pow(2).sum()
                (STRENGTH * penalty / self.accumulate).backward()
                self.penalty_seconds += self.clock() - before
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.clock() - begin, self.penalty_seconds


def measure(make: Callable[[str], Trial], steps: int) -> tuple[float, dict[str, float]]:
    """Return the median milliseconds of a step without, and of each way's penalty; the first step does not count."""
    trials = {way: make(way) for way in WAYS}
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(steps + 1):
        for way, trial in trials.items():
            seconds = trial.step()
            if number:
                found[way].append(seconds)
    penalties = {way: 1000 * statistics.median(part for _, part in values) for way, values in found.items()}
    return 1000 * statistics.median(whole for whole, _ in found["without"]), penalties


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    shape = (options.batch, options.length)
    n_weights = sum(p.numel() for p in make_model("cpu").parameters())
    print(
        f"{n_weights / 1e6:.1f} M weights, {options.accumulate} x {options.batch} x {options.length} tokens a step,"
        f" {options.steps} steps, {options.device}, {torch.get_num_threads()} threads"
    )
    plain, costs = measure(lambda way: Trial(way, options.device, shape, options.accumulate), options.steps)
    for way, cost in costs.items():
        print(f"{way:<10} {plain + cost:9.1f} ms a step {100 * cost / plain:+7.2f} %")
    ours = 100 * costs["ours"] / plain
    if costs["ours"] > 0:
        print(f"the reference's way costs {costs['reference'] / costs['ours']:.1f} times ours")
    print(f"budget {BUDGET_PERCENT} %: {'kept' if ours <= BUDGET_PERCENT else 'exceeded'}")
    return int(ours > BUDGET_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
