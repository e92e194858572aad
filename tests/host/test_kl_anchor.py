"""The KL anchor through the real host."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from contracts.conftest import on_two_processes  # noqa: F401  # fixtures
from host.test_command_line import host
from host.world import UNITS, train_config, under_zero
from slm_plugin.errors import ConfigError

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]


def block(replay=0.0, **options):
    mitigations = [{"kl_anchor": {"strength": 1.0, **options}}]
    if replay:
        mitigations.insert(0, {"replay": {"sources": {"llm": replay}}})
    return {"stage": "tts", "units": {"count": UNITS}, "mitigations": mitigations}


def config(base, data, output, slm, **changes):
    return train_config(base, data, output, stage="tts", slm=slm, **changes) | {"stage": "sft"}


def weights(folder):
    name = "adapter_model.safetensors"
    return load_file(folder / (name if (folder / name).is_file() else "model.safetensors"))


def furthest(one, other):
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def terms(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry["extra_loss"] for entry in history if "extra_loss" in entry]


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_term_starts_at_zero_and_holds_the_answers_back(kind, units_base, data, run_host, tmp_path):
    for name, strength in (("free", 1e-6), ("held", 50.0)):
        slm = block(strength=strength)
        run_host(
            config(
                units_base,
                data,
                tmp_path / name,
                slm,
                max_steps=6,
                finetuning_type=kind,
                optim="sgd",
                learning_rate=0.02,
            )
        )
    free, held = (terms(tmp_path / name) for name in ("free", "held"))
    assert free[0] == pytest.approx(0, abs=1e-9)
    # per unit of strength, the divergence is smaller where it costs
    assert held[-1] / 50.0 < free[-1] / 1e-6


def test_a_resumed_run_has_the_teacher_of_the_first(units_base, data, run_host, tmp_path):
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "finetuning_type": "full"}
    run_host(config(units_base, data, tmp_path / "once", block(), **changes))
    changes["resume_from_checkpoint"] = str(tmp_path / "once/checkpoint-2")
    run_host(config(units_base, data, tmp_path / "resumed", block(), **changes))
    assert furthest(weights(tmp_path / "once"), weights(tmp_path / "resumed")) == 0


def test_accumulation_changes_nothing_but_the_order_of_sums(units_base, data, run_host, tmp_path):
    changes = {"optim": "sgd", "learning_rate": 0.05, "max_steps": 4}
    slm = block(teacher="base", temperature=2.0)
    run_host(config(units_base, data, tmp_path / "one", slm, **changes))
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}
    run_host(config(units_base, data, tmp_path / "cut", slm, **changes, **cut))
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "cut")) <= 2e-6
    # a small difference of large log-probabilities: on one processor the two were 1.06e-4 apart
    assert terms(tmp_path / "cut") == pytest.approx(terms(tmp_path / "one"), rel=5e-4, abs=1e-8)
    assert terms(tmp_path / "one")[-1] > 0


def test_replayed_and_current_rows_are_told_apart(units_base, data, run_host, tmp_path):
    found = {}
    for rows in ("all", "replayed", "current"):
        # the teacher is the base, from which an adapter that was trained before differs at once
        run_host(config(units_base, data, tmp_path / rows, block(replay=0.5, rows=rows), max_steps=3, seed=3))
        found[rows] = terms(tmp_path / rows)[1]
    # one step in all three runs was the same: none had a term then
    assert found["replayed"] + found["current"] == pytest.approx(found["all"], rel=1e-5)
    assert 0 < found["replayed"] < found["all"]


@pytest.mark.parametrize(
    ("slm", "changes", "text"),
    [
        (block(rows="replayed"), {}, "kl_anchor has rows: replayed, but nothing is replayed"),
        (block(teacher="base"), {"finetuning_type": "full"}, "teacher: base"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(slm, changes, text, data, run_host, tmp_path):
    with pytest.raises(ConfigError, match=text):
        run_host(config(tmp_path / "no_such_model", data, tmp_path / "x", slm, **changes))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("zero", "options", "replay"),
    [
        (2, {"teacher": "stage_start"}, 0.0),
        (3, {"teacher": "base"}, 0.0),
        (3, {"teacher": "base", "rows": "replayed"}, 0.3),
    ],
)
def test_zero_makes_the_same_update_as_one_process(
    zero,
    options,
    replay,
    units_base,
    data,
    run_host,
    on_two_processes,
    tmp_path,
):
    changes = {"optim": "sgd", "learning_rate": 0.05, "max_steps": 4, "disable_shuffling": True}
    one = config(units_base, data, tmp_path / "one", block(replay, **options), **changes)
    run_host(one)
    two = under_zero(zero, {**one, "output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2}, tmp_path)
    on_two_processes([two])
    assert furthest(weights(tmp_path / "one"), weights(tmp_path / "two")) <= 2e-6


@pytest.mark.slow
def test_the_stage_start_teacher_is_refused_under_zero_3(units_base, data, tmp_path):
    settings = under_zero(3, config(tmp_path / "no_such_model", data, tmp_path / "x", block()), tmp_path)
    done = host("train", settings, tmp_path, FORCE_TORCHRUN="1", NPROC_PER_NODE="1")
    assert done.returncode != 0
    assert "where ZeRO-3 partitions the model. Use ZeRO-2, or teacher: base." in done.stderr
