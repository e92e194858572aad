"""A closed world of four words, and a model that has learned all of it by heart."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from tiny_models import make_model

UNITS = 20
WORDS = {"red": [1, 2, 3], "blue": [4, 5, 6], "cat": [7, 8, 9], "dog": [10, 11, 12]}
TEXTS = [" ".join(pair) for pair in itertools.permutations(WORDS, 2)]


def units(text: str) -> list[int]:
    return [unit for word in text.split() for unit in WORDS[word]]


def interleaf(text: str) -> str:
    return " ".join(word + "".join(f"<|{unit}|>" for unit in WORDS[word]) for word in text.split())


def rows(stage: str) -> list[dict[str, Any]]:
    """Return all rows of a stage."""
    if stage == "llm":
        return [{"input": f"say {text}", "output": f"{text} of course"} for text in TEXTS]
    if stage == "sqa":
        spoken = [(text, " ".join(reversed(text.split()))) for text in TEXTS]
        return [
            {
                "input_unit": units(question),
                "input_pseudo": question,
                "output_pseudo": answer,
                "output_7306_interleaf": interleaf(answer),
            }
            for question, answer in spoken
        ]
    return [{"transcription": text, "discrete_unit": units(text), "interleaf": interleaf(text)} for text in TEXTS]


def write_rows(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def train_world_model(folder: Path, steps: int = 120) -> Path:
    """Train a tiny model on every conversation, user turns included, until it knows them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from slm_plugin.plugins import Registry

    make_model(folder, units=UNITS, hidden=128)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    stages = Registry.load(entry_points=False).stages
    samples = [stages.get(stage)().sample(row, UNITS) for stage in ("llm", "asr", "tts", "sqa") for row in rows(stage)]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": sample.user}, {"role": "assistant", "content": sample.assistant}],
            tokenize=False,
        )
        for sample in samples
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(steps):
            loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder
