from __future__ import annotations

import json
from pathlib import Path

import pytest

from report.pages import Page, resolve, shows
from report.world import SCORES, right, score, write_run
from slm_plugin.errors import ConfigError
from slm_plugin.eval.statistics import noise_floor
from slm_plugin.pipeline import records
from slm_plugin.plugins import Registry
from slm_plugin.report import page, table
from slm_plugin.report.collect import ReportOptions, collect
from slm_plugin.report.content import Report


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> list[Path]:
    """One pipeline under two seeds; under the second the variant with replay keeps half of its text."""
    runs = [tmp_path_factory.mktemp(f"seed{seed}") / f"seed{seed}" for seed in (1, 2)]
    for seed, run in enumerate(runs, 1):
        write_run(run, registry, seed=seed)
    other = SCORES["sqa_replay"] | {"text": score(right(1, 0, 0, 1))}
    records.write_json(runs[1] / "scores" / "sqa_replay.json", other)
    return runs


@pytest.fixture(scope="module")
def seeds(folders: list[Path], registry: Registry) -> Report:
    return collect(folders, ReportOptions(drift=False, repeats=True), registry)


def test_the_spread_over_seeds_is_that_of_the_worked_example(seeds: Report):
    found = {(spread.variant, spread.skill): spread for spread in seeds.seeds}
    text = found["replay", "text"]
    # .75 and .5: mean .625, deviation .25 / sqrt(2); a difference of two such means: twice its standard error
    assert text.values == (0.75, 0.5)
    assert text.mean == pytest.approx(0.625)
    assert text.deviation == pytest.approx(0.1767767)
    assert text.noise_floor == pytest.approx(2 * 0.1767767)
    assert found["none & nothing", "text"].deviation == 0.0
    assert len(found) == 6


def test_the_noise_floor_falls_with_the_square_root_of_the_seeds():
    # 2 * .1 * sqrt(1 / 2 + 1 / 2) and 2 * .1 * sqrt(1 / 8 + 1 / 8)
    assert noise_floor(0.1, 2, 2) == pytest.approx(0.2)
    assert noise_floor(0.1, 8, 8) == pytest.approx(0.1)


def test_runs_without_the_option_have_no_spread(folders: list[Path], registry: Registry):
    assert collect(folders, ReportOptions(drift=False), registry).seeds == ()


def test_a_skill_that_one_run_alone_has_measured_has_no_deviation(tmp_path: Path, registry: Registry):
    for seed in (1, 2):
        write_run(tmp_path / f"run{seed}", registry, stages=("base", "asr", "sqa_replay"), seed=seed)
    kept = {skill: one for skill, one in SCORES["sqa_replay"].items() if skill != "wer"}
    records.write_json(tmp_path / "run2" / "scores" / "sqa_replay.json", kept)
    options = ReportOptions(drift=False, repeats=True)
    found = collect([tmp_path / "run1", tmp_path / "run2"], options, registry).seeds
    wer = next(spread for spread in found if (spread.variant, spread.skill) == ("replay", "wer"))
    assert (wer.mean, wer.deviation, wer.noise_floor, wer.values) == (0.2, None, None, (0.2,))


def test_the_page_and_the_table_show_the_numbers_of_the_json(seeds: Report):
    content = json.loads(json.dumps(seeds.as_json()))
    parsed = Page(page.render(seeds))
    at = {element.attributes.get("data-at"): element.text for element in parsed.found}
    for position in range(len(seeds.seeds)):
        for key in ("mean", "deviation", "noise_floor", "values/0", "values/1"):
            place = f"/seeds/{position}/{key}"
            assert shows(at[place], resolve(content, place)), place
    assert "| replay | text | 0.625 | 0.177 | 0.354 | 0.750, 0.500 |" in table.render(seeds)


def test_runs_of_the_same_seed_and_single_runs_are_no_repeats(folders: list[Path], tmp_path: Path, registry: Registry):
    write_run(tmp_path / "again", registry, seed=1)
    options = ReportOptions(drift=False, repeats=True)
    with pytest.raises(ConfigError, match="seed1 and again trained asr with the same seed, 1"):
        collect([folders[0], tmp_path / "again"], options, registry)
    with pytest.raises(ConfigError, match="--repeats: needs at least two runs"):
        collect(folders[:1], options, registry)
