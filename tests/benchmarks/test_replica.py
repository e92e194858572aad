"""The replica's pipeline shares what ways have in common, and its page says only what was measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from slm_plugin.pipeline import plan, records, runner
from slm_plugin.vocabulary import strip_units, text_to_units

SEEDS = (1, 2, 3)


@pytest.fixture
def pipeline_file(tmp_path: Path) -> Path:
    import replica

    return replica.build(tmp_path, SEEDS, jobs=2, quick=False)


def test_every_training_is_there_once(pipeline_file, registry):
    loaded = plan.load(pipeline_file, registry)
    trained = Counter(step.train for step in loaded.steps if step.train is not None)
    # 7 methods of three stages and the joint one; two orders of three, TTS and SQA of the units-only way, whose
    # ASR is that of replay, SQA alone; two more seeds of 3 + 3 + 1; the text model
    assert len(trained) == 7 * 3 + 1 + 2 * 3 + 2 + 1 + 2 * 7 + 1
    assert set(trained.values()) == {1}


def test_three_seeds_are_those_of_sequential_replay_and_joint(pipeline_file, registry):
    names = plan.variants(plan.load(pipeline_file, registry))
    seeded = Counter(
        name.removesuffix(f", seed {seed}") for seed in SEEDS[1:] for name in names if f"d {seed}" in name
    )
    assert seeded == {"sequential": 2, "replay 5 %": 2, "joint training": 2}


def test_a_variant_has_the_rows_of_its_whole_way(pipeline_file, registry):
    found = plan.variants(plan.load(pipeline_file, registry))
    rows = {name: [row.label or row.stage for row in variant] for name, variant in found.items()}
    assert rows["replay 5 % + TIES"] == ["base", "asr", "tts", "sqa", "TIES"]
    assert rows["joint training, seed 2"] == ["base", "joint"]
    assert [row.stage for row in found["TTS of units only, with replay 5 %"]][:2] == ["base", "replay_5.asr"]


def test_another_seed_changes_the_training_and_not_the_base(pipeline_file, registry):
    import yaml

    folder = pipeline_file.parent
    one, two = (
        yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("replay_5.tts", "replay_5_seed_2.tts")
    )
    different = {key for key in one if one[key] != two[key]}
    assert different == {"seed", "output_dir", "adapter_name_or_path"}
    assert one["slm"]["mitigations"] == [{"replay": {"sources": {"tiny_text": 0.05, "tiny_asr": 0.05}}}]


def test_units_only_speech_says_the_same_units_without_words(tmp_path, benchmarks):
    subprocess.run([sys.executable, benchmarks / "units_only.py", tmp_path], check=True)
    information = json.loads((tmp_path / "dataset_info.json").read_text())
    spoken = parquet.read_table(tmp_path / information["tiny_tts"]["file_name"])
    before = parquet.read_table("examples/tiny/data/speech.parquet")
    assert spoken.num_rows == before.num_rows == 5000
    for name in ("transcription", "discrete_unit"):
        assert spoken[name].equals(before[name])
    for ours, theirs in zip(spoken["interleaf"].to_pylist(), before["interleaf"].to_pylist(), strict=True):
        assert strip_units(ours) == ""
        assert text_to_units(ours) == text_to_units(theirs)


def test_tokens_of_an_answer_are_told_apart_by_section_and_by_what_stands_before_them():
    import unit_probabilities

    from slm_plugin.vocabulary import UnitVocabulary

    # words 1 to 3, the break 9, units from 10 on: "1 9 2 9 3 u u 3 u"
    ids = [1, 9, 2, 9, 3, 10, 11, 3, 12]
    found = unit_probabilities.kinds(ids, frozenset({9}), UnitVocabulary(10, 5))
    heard, written, words, first, later = unit_probabilities.KINDS
    assert found == [heard, heard, written, written, words, first, later, words, first]


def score(output: Path, stage: str, value: float) -> None:
    content = {skill: {"value": value, "n": 4, "better": "higher"} for skill in ("text_qa", "asr_wer", "tts_wer")}
    records.write_json(runner.scores_path(output, stage), content)


def row(page: str, name: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_shows_means_over_seeds_and_leaves_empty_what_was_not_measured(pipeline_file, tmp_path):
    import replica_page

    for name, value in {"sequential": 0.1, "sequential_seed_2": 0.2, "sequential_seed_3": 0.3}.items():
        for stage in ("asr", "tts", "sqa"):
            score(tmp_path, f"{name}.{stage}", value)
    # asr alone does not make a way finished
    score(tmp_path, "l2_1e_3.asr", 0.9)
    written = replica_page.write(pipeline_file, tmp_path / "docs", SEEDS, "A note.")
    page = written[0].read_text(encoding="utf-8")
    # .1, .2, .3: mean .2, deviation .1; the gate shows the worst of the seeds
    assert row(page, "sequential (3 seeds)")[1] == "0.200 ± 0.100"
    assert row(page, "sequential (3 seeds)")[-2:] == ["0.300 NOT LEARNED", "0.300"]
    assert set(row(page, "L2 1e-3")[1:]) == {""}
    assert "A note." in page
    assert re.search(r"## Not finished\n\n(\d+) of \1 steps, 46 trainings", page)
    assert written[1].read_text(encoding="utf-8").startswith("<?xml")


def test_the_page_of_the_documentation_has_a_row_for_every_method(root):
    import replica_methods

    page = (root / "docs/replica.md").read_text(encoding="utf-8")
    for name in (way.name for way in (*replica_methods.METHODS, *replica_methods.QUESTIONS)):
        assert f"| {name} " in page


@pytest.mark.slow
@pytest.mark.host
@pytest.mark.timeout(1800)
def test_a_quick_replica_runs_to_its_report_and_a_second_run_has_nothing_left_to_train(tmp_path, benchmarks):
    words = ["--quick", "--only", "joint training", "--seeds", "1", "2"]
    words += ["--output", tmp_path / "run", "--docs", tmp_path / "docs"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for already in (0, 8):
        done = subprocess.run(
            [sys.executable, benchmarks / "replica.py", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("finished before") == already
    page = (tmp_path / "docs/replica.md").read_text(encoding="utf-8")
    assert "±" in row(page, r"joint training (2 seeds)")[1]
    assert "Not finished" not in page
    assert (tmp_path / "run/report.html").is_file()
