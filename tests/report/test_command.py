from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from report.world import write_run
from slm_plugin.cli import make_app
from slm_plugin.errors import ConfigError, PipelineError
from slm_plugin.plugins import Registry


def slm(*arguments: str) -> str:
    """Run ``slm report`` and return what it prints; a user's mistake is raised as it is."""
    result = CliRunner().invoke(make_app(), ["report", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_three_files_are_written_where_asked(run: Path, tmp_path: Path):
    output = slm(str(run), "--output", str(tmp_path / "out"), "--learned", "spoken=sqa", "--title", "My runs")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]
    assert str(tmp_path / "out/report.html") in output
    content = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))
    assert content["title"] == "My runs"
    assert content["runs"][0]["variants"][0]["learned"]["spoken"] == {"stage": "sqa", "rule": "given"}
    assert (tmp_path / "out/report.md").read_text(encoding="utf-8").startswith("# My runs\n")


def test_without_a_folder_they_stand_in_the_run(tmp_path: Path, registry: Registry):
    write_run(tmp_path / "run", registry)
    slm(str(tmp_path / "run"), "--no-drift")
    assert (tmp_path / "run/report.html").is_file()


def test_no_samples_and_no_audio_when_asked_for_none(run: Path, tmp_path: Path):
    slm(str(run), "--output", str(tmp_path), "--samples", "0", "--audio", "0")
    assert "<audio" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_all_malformed_options_are_named_at_once(run: Path):
    with pytest.raises(ConfigError) as refused:
        slm(str(run), "--learned", "spoken", "--chance", "text=half")
    assert len(refused.value.problems) == 2
    assert "SKILL=STAGE" in str(refused.value)


def test_a_file_in_the_place_of_the_folder_is_a_clear_error(run: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="cannot be written"):
        slm(str(run), "--output", str(tmp_path / "file"))
