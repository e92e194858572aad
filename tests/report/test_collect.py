from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from report.world import SCORES, write_run, write_training
from slm_plugin.errors import CodecError, ConfigError, PipelineError
from slm_plugin.eval.statistics import compared, resampled
from slm_plugin.pipeline import records
from slm_plugin.plugins import Registry
from slm_plugin.report.collect import ReportOptions, collect
from slm_plugin.report.content import Learned, Report, Variant
from slm_plugin.report.curves import read_curves


def variant(report: Report, name: str) -> Variant:
    return next(found for found in report.runs[0].variants if found.name == name)


def values(found: Variant) -> list[list[float | None]]:
    return [[None if cell is None else cell.value for cell in row] for row in found.cells]


def test_every_variant_has_its_matrix_with_the_common_rows_and_gaps(report: Report):
    assert [found.name for found in report.runs[0].variants] == ["replay", "none & nothing"]
    replay, none = report.runs[0].variants
    assert (replay.stages, replay.skills) == (["base", "asr", "sqa"], ["text", "wer", "spoken"])
    assert values(replay) == [[1.0, None, None], [0.75, 0.1, 0.0], [0.75, 0.2, 1.0]]
    assert values(none)[2] == [0.25, 0.4, 1.0]
    assert replay.cells[1][1].notes == {"recogniser_wer": 0.03}


def test_colours_follow_the_direction_of_a_skill(report: Report):
    (_, asr, sqa) = variant(report, "replay").cells
    # higher is better: the score itself; error rates: 1 - 0.1 and 1 - 0.2
    assert [asr[0].shade, asr[1].shade, sqa[1].shade] == [0.75, 0.9, 0.8]


def test_a_skill_is_learned_where_given_else_at_its_gate_else_where_first_measured(report: Report):
    learned = variant(report, "replay").learned
    assert learned == {
        "text": Learned("base", "first measured"),
        "wer": Learned("asr", "gate"),
        "spoken": Learned("sqa", "given"),
    }


def test_forgetting_is_that_of_the_worked_example(report: Report):
    found = variant(report, "none & nothing").forgetting
    # ACC (0.25 - 0.4 + 1) / 3; BWT ((0.25 - 1) + (-0.4 + 0.1)) / 2; best earlier 1.0 and -0.1; WER 0.1 -> 0.4
    assert found.acc == pytest.approx(0.85 / 3)
    assert found.bwt == pytest.approx(-0.525)
    assert found.forgetting == pytest.approx(0.525)
    assert found.forget_percent == pytest.approx(300.0)
    assert found.fwt is None


def test_forward_transfer_is_over_the_skills_whose_chance_is_given(run: Path, registry: Registry):
    options = ReportOptions(learned={"spoken": "sqa"}, chance={"spoken": 0.25}, drift=False)
    report = collect([run], options, registry)
    # spoken is 0.0 in the row before sqa; wer has no row before asr
    assert variant(report, "replay").forgetting.fwt == pytest.approx(-0.25)


def test_variants_are_compared_item_by_item_with_the_first(report: Report):
    wer = next(found for found in report.comparisons if found.skill == "wer")
    first, second = wer.bars
    items = [SCORES[stage]["wer"]["items"] for stage in ("sqa_replay", "sqa_none")]
    assert report.first == first.variant == "replay"
    assert first.difference is None
    assert second.difference == pytest.approx(0.2)
    expected = compared(*items, np.random.default_rng(report.seed))
    assert (second.difference_low, second.difference_high) == (expected.low, expected.high)
    interval = resampled(items[1], np.random.default_rng(report.seed))
    assert (second.low, second.high) == (interval.low, interval.high)
    assert second.differs is True


def test_scores_without_items_have_intervals_of_their_standard_error_and_no_difference(tmp_path, registry):
    folder = tmp_path / "run"
    write_run(folder, registry)
    for stage, scores in SCORES.items():
        bare = {skill: {key: value for key, value in one.items() if key != "items"} for skill, one in scores.items()}
        records.write_json(folder / "scores" / f"{stage}.json", bare)
    text = collect([folder], ReportOptions(), registry).comparisons[0].bars
    # 0.25 +- 1.96 * 0.05
    assert (text[1].low, text[1].high) == (pytest.approx(0.152, abs=1e-3), pytest.approx(0.348, abs=1e-3))
    assert text[1].difference is None


def test_two_runs_stand_side_by_side(run: Path, tmp_path: Path, registry: Registry):
    write_run(tmp_path / "other", registry)
    found = collect([run, tmp_path / "other"], ReportOptions(drift=False), registry)
    names = [bar.variant for bar in found.comparisons[0].bars]
    assert names == ["run: replay", "run: none & nothing", "other: replay", "other: none & nothing"]


def test_gates_come_from_the_pipeline_and_without_it_from_the_summary(report: Report, run: Path, registry: Registry):
    remembered = collect([run], ReportOptions(drift=False), registry)
    assert remembered.runs[0].pipeline is None
    for found in (report, remembered):
        gates = [(gate.stage, gate.skill, gate.bound, gate.value, gate.passed) for gate in found.runs[0].gates]
        assert gates == [("asr", "wer", "at most 0.2", 0.1, True), ("sqa_none", "wer", "at most 0.3", 0.4, False)]


def test_the_pipeline_file_in_a_run_is_found(tmp_path: Path, registry: Registry):
    file = write_run(tmp_path / "run", registry)
    (tmp_path / "run/configs").mkdir()
    file.replace(tmp_path / "run/configs/pipeline.yaml")
    found = collect([tmp_path / "run"], ReportOptions(drift=False), registry).runs[0]
    assert found.pipeline == str(tmp_path / "run/configs/pipeline.yaml")


def test_steps_have_their_times_seeds_commands_and_yaml(report: Report):
    train, evaluation = report.runs[0].steps[:2]
    assert (train.kind, train.seconds, train.cpu_seconds, train.seed) == ("train", 12.5, 3.25, 7)
    assert train.command.startswith("FORCE_TORCHRUN=1 NPROC_PER_NODE=2 llamafactory-cli train ")
    assert train.command.endswith("asr.yaml")
    assert "seed: 7" in train.config
    assert evaluation.command.endswith("pipeline.yaml --step eval_base")


def test_replay_counts_and_versions_are_there(report: Report):
    assert report.runs[0].replay == {"asr": {"old/text": 20}}
    assert report.runs[0].versions == {"slm_plugin": "1"}


def test_curves_are_loss_and_whatever_else_was_logged(tmp_path: Path):
    write_training(tmp_path)
    curves, total = read_curves(tmp_path)
    assert {curve.name: (curve.steps, curve.values) for curve in curves} == {
        "loss": ([10, 20, 30], [0.4, 0.2, pytest.approx(4 / 30)]),
        "probe_text": ([20], [0.5]),
    }
    assert total == 40


def test_trainings_are_found_below_the_run(report: Report):
    assert [training.name for training in report.runs[0].trainings] == ["asr"]


def test_a_half_finished_run_gives_what_is_there(tmp_path: Path, registry: Registry):
    file = write_run(tmp_path / "run", registry, stages=("base", "asr"))
    found = collect([tmp_path / "run"], ReportOptions(pipeline=file), registry).runs[0]
    assert [variant.stages for variant in found.variants] == [["base", "asr"]] * 2
    assert "Not scored yet: sqa_replay, sqa_none." in found.notes
    assert found.gates[1].passed is None
    assert found.steps[-1].seconds is None


def test_a_run_without_scores_gives_its_steps_and_curves(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "run", registry, stages=())
    found = collect([tmp_path / "run"], ReportOptions(), registry)
    assert (found.runs[0].variants, found.comparisons) == ([], [])
    assert found.runs[0].trainings
    assert "Nothing has been scored yet." in found.runs[0].notes


def test_scores_alone_are_enough(tmp_path: Path, registry: Registry):
    records.write_json(tmp_path / "scores/asr.json", SCORES["asr"])
    found = collect([tmp_path], ReportOptions(), registry).runs[0]
    assert [variant.stages for variant in found.variants] == [["asr"]]
    assert "There is no record of finished steps." in found.notes


def test_a_damaged_file_of_scores_is_passed_over(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "run", registry)
    (tmp_path / "run/scores/asr.json").write_text('{"text": {"val')
    found = collect([tmp_path / "run"], ReportOptions(), registry).runs[0]
    assert found.variants[0].stages == ["base", "sqa"]


def test_a_moved_run_is_read_where_it_is(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "first/run", registry)
    shutil.move(tmp_path / "first/run", tmp_path / "moved")
    found = collect([tmp_path / "moved"], ReportOptions(), registry).runs[0]
    assert [training.name for training in found.trainings] == ["asr"]
    assert len(found.variants) == 2


@pytest.mark.parametrize("name", ["nothing", "run/asr", "pipeline.yaml"])
def test_a_folder_that_is_no_run_is_refused_with_the_nearest_run(name: str, tmp_path: Path, registry: Registry):
    write_run(tmp_path / "run", registry)
    with pytest.raises(PipelineError, match="output folder of slm run") as refused:
        collect([tmp_path / name], ReportOptions(), registry)
    assert (f"Did you mean '{tmp_path / 'run'}'?" in str(refused.value)) == (name != "run/asr")


def test_unknown_skills_and_stages_are_all_named_with_the_nearest(run: Path, registry: Registry):
    options = ReportOptions(learned={"spokn": "sqa", "text": "bas"}, chance={"wr": 1.0})
    with pytest.raises(ConfigError) as refused:
        collect([run], options, registry)
    assert len(refused.value.problems) == 3
    for nearest in ("'spoken'", "'base'", "'wer'"):
        assert f"Did you mean {nearest}?" in str(refused.value)


def test_an_unknown_codec_is_refused_when_given_and_noted_when_recorded(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "run", registry)
    with pytest.raises(CodecError, match="no codec is called"):
        collect([tmp_path / "run"], ReportOptions(codec="tyni"), registry)
    records.write_json(tmp_path / "run/serve.json", {"model": "m", "codec": "gone"})
    found = collect([tmp_path / "run"], ReportOptions(), registry)
    assert any("cannot be played" in note for note in found.runs[0].notes)
    assert not found.audio


def test_the_same_run_gives_the_same_report(report: Report, run: Path, registry: Registry):
    options = ReportOptions(pipeline=run.parent / "pipeline.yaml", codec="tiny", learned={"spoken": "sqa"})
    assert collect([run], options, registry) == report
