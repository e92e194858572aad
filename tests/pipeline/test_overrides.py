"""``key=value`` arguments of ``slm run``: what they reach, what runs again, and what is refused."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from slm_plugin.cli import make_app
from slm_plugin.errors import ConfigError
from slm_plugin.host.keys import host_keys
from slm_plugin.pipeline import plan, runner
from slm_plugin.pipeline.overrides import Moved, assign
from slm_plugin.pipeline.progress import Progress

ASR = {"model_name_or_path": "runs/old/base", "output_dir": "runs/old/asr", "learning_rate": 0.1, "seed": 1}
ASR |= {"slm": {"stage": "asr", "units": {"count": 50}, "mitigations": [{"replay": {"sources": {"text": 0.2}}}]}}


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> Path:
    """A pipeline file that trains nothing yet, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("asr.yaml").write_text(yaml.safe_dump(ASR))
    merge = {"method": "dare_ties", "base_model": "runs/old/base", "models": [{"model": "runs/old/asr"}]}
    Path("merge.yaml").write_text(yaml.safe_dump({"export_dir": "runs/old/merge", "slm": {"merge": merge}}))
    append = "import sys; open('log', 'a').write(' '.join(sys.argv[1:]) + chr(10))"
    steps = [
        {"name": "first.one", "command": ["python", "-c", append, "first", "--seed", "1", "{output}", "runs/old/x"]},
        {"name": "second", "command": ["python", "-c", append, "second", "--out=runs/old/y"]},
        {"name": "apart", "needs": [], "command": ["python", "-c", append, "apart"]},
        {"name": "asr", "needs": [], "train": "asr.yaml"},
        {"name": "merge", "needs": ["asr"], "export": "merge.yaml"},
        {
            "name": "eval",
            "needs": ["asr"],
            "evaluate": {"model": "runs/old", "adapter": "./runs/old/asr", "stage": "s"},
        },
    ]
    skills = [{"skill": "chat", "probe": "text_match", "options": {"data": "rows.jsonl"}}]
    path = Path("pipeline.yaml")
    path.write_text(yaml.safe_dump({"output": "runs/old", "skills": skills, "steps": steps}))
    return path


def load(pipeline, registry, *arguments):
    return {step.name: step for step in plan.load(pipeline, registry, arguments).steps}


def test_without_arguments_a_step_runs_the_file_that_it_names(pipeline, registry):
    steps = load(pipeline, registry)
    assert steps["asr"].settings == {} == steps["merge"].settings


def test_output_moves_everything_that_is_written_and_read_again(pipeline, registry):
    steps = load(pipeline, registry, "output=new")
    assert steps["asr"].settings == {"model_name_or_path": "new/base", "output_dir": "new/asr"}
    assert steps["merge"].settings["export_dir"] == "new/merge"
    assert steps["merge"].settings["slm"]["merge"]["models"] == [{"model": "new/asr"}]
    assert steps["first.one"].command[-2:] == ["{output}", "new/x"]
    assert steps["second"].command[-1] == "--out=new/y"
    assert steps["eval"].evaluate.model == "new"
    assert steps["eval"].evaluate.adapter == "new/asr"


def test_outputs_outside_of_the_output_folder_move_too():
    moved = Moved("runs/m/results", "new", ["runs/m/asr", "runs/m/sub/tts"])
    found = [moved.path(path) for path in ("runs/m/results/scores", "runs/m/asr,runs/m/sub/tts/x", "./runs/m/asr")]
    assert found == ["new/scores", "new/asr,new/sub/tts/x", "new/asr"]
    # neither is what only begins alike, what lies beside, or a name that happens to be that of the folder
    assert moved.path("runs/m/asr_2") == "runs/m/asr_2"
    assert moved.path("data/runs/m/asr") == "data/runs/m/asr"
    assert Moved("out", "new", []).content({"dataset": "out", "data": "out", "text": "out loud"}) == {
        "dataset": "out",
        "data": "new",
        "text": "out loud",
    }
    # in a pipeline that writes to the working folder, inputs stay where they are
    here = Moved(".", "new", ["asr"])
    assert [here.path(path) for path in ("asr/x", "data", "./data")] == ["new/asr/x", "data", "./data"]


def test_seed_reaches_every_step_that_has_one(pipeline, registry):
    steps = load(pipeline, registry, "seed=7")
    assert steps["asr"].settings["seed"] == 7
    assert steps["asr"].settings["slm"]["units"] == {"count": 50, "seed": 7}
    assert steps["merge"].settings["slm"]["merge"]["seed"] == 7
    # an export has no seed of its own
    assert "seed" not in steps["merge"].settings
    assert steps["first.one"].command[4:6] == ["--seed", "7"]
    # the key of one step wins over that of all
    assert load(pipeline, registry, "seed=7", "steps.asr.train.seed=8")["asr"].settings["seed"] == 8


def test_a_key_reaches_the_yaml_of_its_step_alone(pipeline, registry):
    steps = load(
        pipeline,
        registry,
        "steps.asr.train.learning_rate=1e-4",
        "steps.3.train.slm.mitigations.replay.sources.text=0.5",
        "steps.asr.processes=2",
        "steps.first.one.environment.THREADS=2",
        "skills.chat.options.n=3",
    )
    assert steps["asr"].settings["learning_rate"] == 1e-4
    assert steps["asr"].settings["slm"]["mitigations"] == [{"replay": {"sources": {"text": 0.5}}}]
    assert steps["asr"].processes == 2
    assert steps["first.one"].environment == {"THREADS": "2"}
    assert steps["merge"].settings == {}
    # what is the same already is no change
    assert load(pipeline, registry, "steps.asr.train.seed=1")["asr"].settings == {}


def test_named_options_of_a_list_are_found_made_and_replaced():
    content = {"m": ["replay", {"llrd": {"alpha": 0.9}}]}
    assert assign(content, ["m", "replay", "pick"], "surprise") == ".m[0].replay.pick"
    assign(content, ["m", "llrd"], {"alpha": 0.5})
    assign(content, ["m", "l2_anchor", "strength"], 0.1)
    assert content == {
        "m": [{"replay": {"pick": "surprise"}}, {"llrd": {"alpha": 0.5}}, {"l2_anchor": {"strength": 0.1}}]
    }


def test_all_mistakes_are_reported_at_once_with_the_nearest_name(pipeline):
    arguments = [
        "word",
        "job=2",
        "steps.assr.processes=2",
        "steps.asr.proceses=2",
        "steps.eval.processes=two",
        "steps.asr.train.lerning_rate=1",
        "steps.asr.train.slm.mitigations.repay.ratio=1",
        "steps.asr.train.output_dir.x=1",
    ]
    done = CliRunner().invoke(make_app(), ["run", str(pipeline), *arguments])
    assert isinstance(done.exception, ConfigError)
    text = str(done.exception)
    for expected in (
        "command line: 'word' is not key=value",
        "command line: job: unknown key. Did you mean 'jobs'?",
        "command line: steps.assr.processes: no item is called 'assr'. Did you mean 'asr'?",
        "command line: steps.asr.proceses: unknown key. Did you mean 'processes'?",
        "command line: steps.eval.processes: input should be a valid integer",
        "steps.asr.train.lerning_rate: LLaMA-Factory has no key 'lerning_rate'. Did you mean 'learning_rate'?",
        "no mitigation is called 'repay'. Did you mean 'replay'?",
        "command line: steps.asr.train.output_dir.x: does not fit asr.yaml: output_dir is 'runs/old/asr'",
    ):
        assert expected in text
    assert not Path("runs").exists()


@pytest.mark.host
def test_keys_of_the_host_are_those_of_its_parser():
    from llamafactory.hparams import parser

    classes = {*parser._TRAIN_ARGS, *parser._EVAL_ARGS}
    names = {name for cls in classes for name, field in cls.__dataclass_fields__.items() if field.init}
    assert names <= host_keys()


def run(path, registry, *arguments):
    with Progress(Console(file=io.StringIO())) as progress:
        outcomes = runner.run(plan.load(path, registry, arguments), path, progress)
    return {outcome.name: outcome.skipped for outcome in outcomes}


def test_another_value_runs_the_affected_steps_again_and_the_same_value_none(pipeline, registry):
    content = yaml.safe_load(pipeline.read_text())
    pipeline.write_text(yaml.safe_dump({**content, "skills": [], "steps": content["steps"][:3]}))
    assert set(run(pipeline, registry, "output=new", "seed=7").values()) == {False}
    assert Path("log").read_text().splitlines()[0] == "first --seed 7 new new/x"
    assert set(run(pipeline, registry, "output=new", "seed=7").values()) == {True}
    assert run(pipeline, registry, "output=new", "seed=7", "steps.second.environment.A=1") == {
        "first.one": True,
        "second": False,
        "apart": True,
    }
    # the seed of a command that takes one, and what is made from it
    assert run(pipeline, registry, "output=new", "seed=8", "steps.second.environment.A=1") == {
        "first.one": False,
        "second": False,
        "apart": True,
    }
    lineage = json.loads(Path("new/lineage.json").read_text())
    assert lineage["first.one"]["overrides"] == ["output=new", "seed=8", "steps.second.environment.A=1"]
    assert lineage["apart"]["overrides"] == ["output=new", "seed=7"]
    assert not Path("runs").exists()


def test_a_step_with_settings_runs_a_copy_of_its_yaml(pipeline, registry):
    loaded = plan.load(pipeline, registry, ["output=new", "steps.asr.train.max_steps=3"])
    step = next(step for step in loaded.steps if step.name == "asr")
    started = runner._Run(loaded, pipeline, None)._host_file(step)
    assert started == Path("new/.steps/asr.yaml")
    expected = {**ASR, "model_name_or_path": "new/base", "output_dir": "new/asr", "max_steps": 3}
    assert yaml.safe_load(started.read_text()) == expected
    assert runner.outputs_of(step, Path("new")) == [Path("new/asr")]


def test_the_help_names_the_form():
    text = re.sub(r"\s+", " ", CliRunner().invoke(make_app(), ["run", "--help"]).output)
    assert "key=value" in text
    assert "seed=N" in text
