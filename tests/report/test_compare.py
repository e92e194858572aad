"""Only variants that ended at the same stage are compared; the others are named with the stage they have reached."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from report.pages import Page
from report.world import SCORES, right, score, write_run
from slm_plugin.pipeline import records
from slm_plugin.plugins import Registry
from slm_plugin.report import page, table
from slm_plugin.report.collect import ReportOptions, collect
from slm_plugin.report.compare import Entry, ended_alike
from slm_plugin.report.content import Bar, Report


def bars(report: Report, skill: str) -> list[Bar]:
    return list(next(found for found in report.comparisons if found.skill == skill).bars)


def shown(report: Report) -> str:
    """Return all that a reader sees: the table in Markdown and the text of the page."""
    return table.render(report) + " ".join(element.text for element in Page(page.render(report)).of("section"))


@pytest.mark.parametrize("known", [True, False])
def test_an_unfinished_variant_is_marked_and_not_compared(tmp_path: Path, registry: Registry, known: bool):
    file = write_run(tmp_path / "run", registry, stages=("base", "asr", "sqa_replay"))
    if not known:
        # without the file, the scores and the other variant are all that is known
        content = yaml.safe_load(file.read_text())
        del content["steps"][-1]
        content["steps"].append({"name": "eval_x", "needs": [], "evaluate": {
            "model": "base", "stage": "asr_none", "label": "asr", "variants": ["none & nothing"]}})  # fmt: skip
        records.write_json(tmp_path / "run/scores/asr_none.json", SCORES["sqa_none"])
        lineage = json.loads((tmp_path / "run/lineage.json").read_text())
        lineage["eval_x"] = {**lineage["eval_asr"], "definition": content["steps"][-1], "outputs": {}}
        (tmp_path / "run/lineage.json").write_text(json.dumps(lineage))
    report = collect([tmp_path / "run"], ReportOptions(pipeline=file if known else None, drift=False), registry)
    first, second = bars(report, "text")
    assert (first.stage, first.finished, second.stage, second.finished) == ("sqa", True, "asr", False)
    assert (second.difference, second.differs, second.reference) == (None, None, None)
    text = shown(report)
    assert "| none & nothing |" in text
    assert re_row(text, "none & nothing").endswith("| asr, unfinished |")
    assert "none & nothing (unfinished, after asr)" in text
    assert ", differs" not in text
    assert ", may be chance" not in text


def re_row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |"))


def test_runs_that_ended_at_different_stages_are_not_compared(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "a/whole", registry)
    file = write_run(tmp_path / "b/half", registry, stages=("base", "asr"))
    other = SCORES["asr"] | {"text": score(right(0, 0, 0, 0))}
    records.write_json(tmp_path / "b/half/scores/asr.json", other)
    options = ReportOptions(pipeline=file, drift=False)
    report = collect([tmp_path / "a/whole", tmp_path / "b/half"], options, registry)
    found = {bar.variant: bar for bar in bars(report, "text")}
    assert found["whole: none & nothing"].reference == "whole: replay"
    for name in ("half: replay", "half: none & nothing"):
        # both stand at one evaluation, which is not compared with itself either
        assert (found[name].difference, found[name].finished) == (None, False)


def test_what_ended_at_one_stage_is_compared_with_the_first_that_did(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "a/whole", registry)
    halves = []
    for seed, answers in ((1, (1, 1, 1, 1)), (2, (0, 0, 0, 0))):
        file = write_run(tmp_path / f"{seed}/half{seed}", registry, stages=("base", "asr"), seed=seed)
        content = SCORES["asr"] | {"text": score(right(*answers))}
        records.write_json(tmp_path / f"{seed}/half{seed}/scores/asr.json", content)
        halves.append(tmp_path / f"{seed}/half{seed}")
    report = collect([tmp_path / "a/whole", *halves], ReportOptions(pipeline=file, drift=False), registry)
    bar = next(bar for bar in bars(report, "text") if bar.variant == "half2: replay")
    assert (bar.difference, bar.differs, bar.reference) == (-1.0, True, "half1: replay")
    assert "0.000 (-1.000 to half1: replay, differs)" in table.render(report)


def test_scores_by_other_data_are_not_compared(tmp_path: Path, registry: Registry):
    for folder, match, digits in (("a/one", "exact", "12ab"), ("b/two", "contains", "12ab")):
        file = write_run(tmp_path / folder, registry)
        content = json.loads(json.dumps(yaml.safe_load(file.read_text())))
        # the same data under two paths; the first skill is scored in another way
        content["skills"][0]["options"] |= {"match": match}
        content["skills"][1]["options"] |= {"examples": len(match)}
        (tmp_path / folder / "pipeline.yaml").write_text(yaml.safe_dump(content))
        lineage = json.loads((tmp_path / folder / "lineage.json").read_text())
        for entry in lineage.values():
            entry["inputs"] = {f"file {content['skills'][0]['options']['data']}": digits}
        (tmp_path / folder / "lineage.json").write_text(json.dumps(lineage))
    report = collect([tmp_path / "a/one", tmp_path / "b/two"], ReportOptions(drift=False), registry)
    references = {skill: [bar.reference for bar in bars(report, skill)] for skill in ("text", "wer")}
    assert references == {
        # compared inside each run, and not across them
        "text": [None, "one: replay", None, "two: replay"],
        "wer": [None, "one: replay", "one: replay", "one: replay"],
    }


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        # name of the last row, stage in which the model was trained, whether the name is a label, whether finished
        (("sqa", "", True, True), ("sqa", "", True, True), True),
        (("sqa", "", True, True), ("asr", "", True, False), False),
        (("sqa", "", True, True), ("tts", "", True, True), False),
        (("asr", "", True, False), ("asr", "", True, True), True),
        (("end", "sqa", True, True), ("end", "tts", True, True), False),
        (("plain", "", False, True), ("anchored", "", False, True), True),
        (("plain", "", False, True), ("anchored", "", False, False), False),
        (("plain", "asr", False, True), ("anchored", "asr", False, True), True),
        (("plain", "asr", False, True), ("anchored", "tts", False, True), False),
        (("sqa_100", "sqa", True, True), ("sqa_500", "sqa", True, True), False),
    ],
)
def test_which_variants_ended_alike(report: Report, first, second, alike: bool):
    entries = []
    for name, trained, labelled, finished in (first, second):
        variant = replace(report.runs[0].variants[0], stages=["base", name], trained=trained)
        entries.append(Entry(name, replace(variant, labelled=labelled, finished=finished), {}))
    assert ended_alike(*entries) is alike
    assert ended_alike(*reversed(entries)) is alike


def test_the_stage_of_a_model_is_that_of_its_card(tmp_path: Path, registry: Registry):
    file = write_run(tmp_path / "run", registry)
    content = yaml.safe_load(file.read_text())
    for step, stage in zip(content["steps"][-2:], ("sqa", "tts"), strict=True):
        folder = tmp_path / "run" / stage
        folder.mkdir()
        records.write_json(folder / "slm.json", {"stage": stage})
        step["evaluate"]["adapter"] = str(folder)
    file.write_text(yaml.safe_dump(content))
    report = collect([tmp_path / "run"], ReportOptions(pipeline=file, drift=False), registry)
    assert [variant.trained for variant in report.runs[0].variants] == ["sqa", "tts"]
    # both rows are labelled "sqa", but one of the models was trained in another stage
    assert [bar.reference for bar in bars(report, "text")] == [None, None]


def test_the_spread_over_seeds_is_that_of_one_stage(tmp_path: Path, registry: Registry):
    for seed, stages in ((1, tuple(SCORES)), (2, tuple(SCORES)), (3, ("base", "asr"))):
        write_run(tmp_path / f"{seed}/run{seed}", registry, stages=stages, seed=seed)
    folders = [tmp_path / f"{seed}/run{seed}" for seed in (1, 2, 3)]
    options = ReportOptions(drift=False, repeats=True, pipeline=tmp_path / "3/pipeline.yaml")
    found = {(spread.variant, spread.skill): spread for spread in collect(folders, options, registry).seeds}
    assert found["replay, after sqa", "wer"].values == (0.2, 0.2)
    assert found["replay, after asr", "wer"].values == (0.1,)


def test_a_perplexity_is_no_part_of_the_mean_over_skills(tmp_path: Path, report: Report, registry: Registry):
    file = write_run(tmp_path / "run", registry)
    for number, (stage, content) in enumerate(SCORES.items()):
        perplexity = {"value": 120.0 + number, "n": 50, "better": "lower", "standard_error": 2.0, "notes": {}}
        records.write_json(tmp_path / f"run/scores/{stage}.json", content | {"ppl": perplexity})
    options = ReportOptions(pipeline=file, learned={"spoken": "sqa"}, drift=False)
    found = collect([tmp_path / "run"], options, registry)
    assert [variant.other_scales for variant in found.runs[0].variants] == [["ppl"], ["ppl"]]
    before = [variant.forgetting for variant in report.runs[0].variants]
    assert [variant.forgetting for variant in found.runs[0].variants] == before
    assert "because their scores are no rates: ppl." in table.render(found)
    assert "because their scores are no rates: ppl." in shown(found).replace(table.render(found), "")
    assert "no rates" not in shown(report)
