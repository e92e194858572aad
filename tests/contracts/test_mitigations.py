"""What every mitigation must keep to, alone and beside every other one.

A few rows hold every pair of choices; the full cross product runs with the slow tests.
"""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch

from contracts.conftest import furthest, same, trained
from contracts.covering import covering_rows, every_row
from contracts.table import TABLE
from slm_plugin.plugins import Registry

pytestmark = [pytest.mark.host, pytest.mark.xdist_group("host")]

# the mean over two processes is summed in another order than over one batch
PROCESSES_TOLERANCE = 2e-6
# a weight's step must not depend on the sign of a gradient that is all rounding, as Adam's would
LINEAR = {"optim": "sgd", "learning_rate": 0.05}
FACTORS = {
    **{name: [None, *entry.active] for name, entry in TABLE.items()},
    # no mitigation of its own, but a stage may start from a discounted adapter whatever keeps its skills
    "lora_scale": [None, 0.5],
    "tied": [False, True],
    "train_units": ["modules", "rows"],
    "processes": [1, 2],
}
WORLDS = list(itertools.product([False, True], ["modules", "rows"]))
SINGLES = [(name, choice) for name, entry in TABLE.items() for choice in entry.active]


def label(row):
    return "-".join(f"{key}={value}" for key, value in row.items() if value not in (None, False))


def split(row):
    """Return tied, train_units, the choices of mitigations and the discount of a row."""
    return row["tied"], row["train_units"], {name: row[name] for name in TABLE}, row["lora_scale"]


ROWS = covering_rows(FACTORS)


@pytest.fixture(scope="module")
def plain(configuration, run_host, tmp_path_factory):
    """Adapters trained with no mitigation, by world."""
    found = {}
    for tied, train_units in WORLDS:
        folder = tmp_path_factory.mktemp("plain")
        run_host(configuration(folder, tied, train_units, {}))
        found[tied, train_units] = trained(folder)
    return found


@pytest.fixture(scope="module")
def two(configuration, on_two_processes, tmp_path_factory):
    """Folders that two processes trained in, by row."""
    rows = [row for row in ROWS if row["processes"] == 2]
    folders = {label(row): tmp_path_factory.mktemp("two") for row in rows}
    on_two_processes(
        [configuration(folders[label(row)], *split(row), **LINEAR, per_device_train_batch_size=2) for row in rows]
    )
    return folders


def test_every_registered_mitigation_is_in_the_table():
    registered = set(Registry.load(entry_points=False).mitigations.names())
    assert set(TABLE) == registered
    assert all(entry.active for entry in TABLE.values())


def test_a_stage_starts_from_a_discounted_adapter(configuration, run_host, tmp_path):
    # a rate of 0 saves the start; of the two matrices of an update, one counts half
    starts = {}
    for scale in (1.0, 0.5):
        run_host(configuration(tmp_path / str(scale), False, "modules", {}, scale, learning_rate=0.0))
        starts[scale] = trained(tmp_path / str(scale))
    (up,) = [name for name in starts[1.0] if name.endswith("layers.0.self_attn.q_proj.lora_B.weight")]
    assert starts[1.0][up].abs().max() > 0
    torch.testing.assert_close(starts[0.5][up], 0.5 * starts[1.0][up])


@pytest.mark.parametrize("name", TABLE)
def test_a_neutral_setting_leaves_training_bit_identical(name, configuration, run_host, plain, tmp_path):
    run_host(configuration(tmp_path, False, "modules", {name: "neutral"}))
    assert same(trained(tmp_path), plain[False, "modules"])


@pytest.mark.parametrize(("tied", "train_units"), WORLDS)
def test_all_neutral_settings_together_leave_training_bit_identical(
    tied, train_units, configuration, run_host, plain, tmp_path
):
    run_host(configuration(tmp_path, tied, train_units, dict.fromkeys(TABLE, "neutral")))
    assert same(trained(tmp_path), plain[tied, train_units])


@pytest.mark.parametrize(("name", "choice"), SINGLES)
def test_an_active_setting_changes_training(name, choice, configuration, run_host, plain, tmp_path):
    run_host(configuration(tmp_path, False, "modules", {name: choice}))
    assert not same(trained(tmp_path), plain[False, "modules"])


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_a_block_trains_to_finite_weights_and_resumes_to_the_same_ones(row, configuration, run_host, tmp_path):
    check_in_one_process(row, configuration, run_host, tmp_path)


@pytest.mark.parametrize("row", [row for row in ROWS if row["processes"] == 2], ids=label)
def test_one_and_two_processes_train_the_same_weights(row, configuration, run_host, two, tmp_path):
    run_host(configuration(tmp_path, *split(row), **LINEAR))
    assert furthest(trained(tmp_path), trained(two[label(row)])) <= PROCESSES_TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("tied", "train_units"), WORLDS)
def test_every_block_trains_to_finite_weights_and_resumes_to_the_same_ones(
    tied, train_units, configuration, run_host, tmp_path
):
    rows = every_row({**FACTORS, "tied": [tied], "train_units": [train_units], "processes": [1]})
    for number, row in enumerate(rows):
        check_in_one_process(row, configuration, run_host, tmp_path / str(number))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("tied", "train_units"), WORLDS)
def test_every_block_trains_the_same_weights_on_one_and_two_processes(
    tied, train_units, configuration, run_host, on_two_processes, tmp_path
):
    rows = every_row({**FACTORS, "tied": [tied], "train_units": [train_units], "processes": [2]})
    on_two_processes(
        [
            configuration(tmp_path / f"two{number}", *split(row), **LINEAR, per_device_train_batch_size=2)
            for number, row in enumerate(rows)
        ],
        timeout=3000,
    )
    for number, row in enumerate(rows):
        run_host(configuration(tmp_path / f"one{number}", *split(row), **LINEAR))
        one, two = (trained(tmp_path / f"{count}{number}") for count in ("one", "two"))
        assert furthest(one, two) <= PROCESSES_TOLERANCE, label(row)


def check_in_one_process(row, configuration, run_host, folder):
    saving = {"save_strategy": "steps", "save_steps": 2}
    run_host(configuration(folder / "once", *split(row), **saving))
    weights = trained(folder / "once")
    assert all(torch.isfinite(weight).all() for weight in weights.values()), label(row)
    history = json.loads((folder / "once/trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    steps = [entry for entry in history if "loss" in entry]
    assert len(steps) == 4
    assert all(math.isfinite(entry["grad_norm"]) and entry["grad_norm"] > 0 for entry in steps), label(row)
    checkpoint = str(folder / "once/checkpoint-2")
    run_host(configuration(folder / "resumed", *split(row), **saving, resume_from_checkpoint=checkpoint))
    assert same(trained(folder / "resumed"), weights), label(row)
