"""``slm run``: order, resume, what runs again and what does not, failures and interruption."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from slm_plugin.cli import make_app
from slm_plugin.errors import ConfigError, PipelineError
from slm_plugin.pipeline import plan, results, runner
from slm_plugin.pipeline.fingerprints import step_inputs
from slm_plugin.pipeline.progress import Progress
from slm_plugin.plugins import Registry

SILENT = Console(file=io.StringIO())


@pytest.fixture(scope="module")
def registry():
    return Registry.load(entry_points=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def appending(name, text, **more):
    """Make a step that appends a line to ``name``, so that its runs can be counted."""
    code = f"open({name!r}, 'a').write({text!r} + chr(10))"
    return {"command": ["python", "-c", code], **more}


def write(folder, steps, **more):
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"output": "out", "steps": steps, **more}))
    return path


def run(path, registry):
    with Progress(SILENT) as progress:
        return runner.run(plan.load(path, registry), path, progress)


def lines(name):
    return Path(name).read_text().split() if Path(name).exists() else []


def test_steps_run_in_order_of_need_and_finished_ones_are_skipped(folder, registry):
    steps = [
        {"name": "one", **appending("log", "one")},
        {"name": "two", **appending("log", "two")},
        {"name": "three", "needs": ["one"], **appending("log", "three")},
    ]
    first = run(write(folder, steps), registry)
    assert [outcome.skipped for outcome in first] == [False] * 3
    assert lines("log")[0] == "one"
    assert sorted(lines("log")) == ["one", "three", "two"]
    again = run(write(folder, steps), registry)
    assert [outcome.skipped for outcome in again] == [True] * 3
    assert len(lines("log")) == 3


def test_a_changed_input_runs_its_step_and_what_depends_on_it_again(folder, registry):
    Path("data").write_text("1")
    steps = [
        {"name": "one", **appending("log", "one"), "inputs": ["data"]},
        {"name": "two", **appending("log", "two")},
        {"name": "apart", "needs": [], **appending("log", "apart")},
    ]
    run(write(folder, steps), registry)
    Path("data").write_text("2")
    outcomes = run(write(folder, steps), registry)
    assert [outcome.skipped for outcome in outcomes] == [False, False, True]


def test_bytecode_that_a_step_leaves_beside_its_script_runs_nothing_again(folder, registry):
    Path("code").mkdir()
    Path("code/words.py").write_text("WORDS = 93")
    command = ["python", "-c", "import sys; sys.path.insert(0, 'code'); import words"]
    steps = [{"name": "one", "command": command, "inputs": ["code"], "environment": {"PYTHONDONTWRITEBYTECODE": ""}}]
    run(write(folder, steps), registry)
    assert list(Path("code").rglob("*.pyc"))
    assert run(write(folder, steps), registry)[0].skipped


def test_a_missing_output_runs_the_step_again(folder, registry):
    steps = [{"name": "one", **appending("log", "one"), "outputs": ["log"]}]
    run(write(folder, steps), registry)
    Path("log").unlink()
    assert not run(write(folder, steps), registry)[0].skipped
    assert lines("log") == ["one"]


def test_a_failed_step_shows_the_end_of_its_log_and_what_was_finished_stays_so(folder, registry):
    broken = {"name": "two", "command": ["python", "-c", "import sys; sys.exit('no such microphone')"]}
    steps = [{"name": "one", **appending("log", "one")}, broken, {"name": "three", **appending("log", "three")}]
    with pytest.raises(PipelineError, match=r"step two ended with status 1; its log .*\n  no such microphone"):
        run(write(folder, steps), registry)
    mended = [steps[0], {"name": "two", **appending("log", "two")}, steps[2]]
    outcomes = run(write(folder, mended), registry)
    assert [outcome.skipped for outcome in outcomes] == [True, False, False]
    assert lines("log") == ["one", "two", "three"]


def test_a_step_that_writes_nothing_it_promised_fails(folder, registry):
    steps = [{"name": "one", **appending("log", "one"), "outputs": ["{output}/answer.wav"]}]
    with pytest.raises(PipelineError, match=r"step one did not write out/answer\.wav"):
        run(write(folder, steps), registry)


def test_two_jobs_run_at_the_same_time(folder, registry):
    # each waits until the other has started: with one job at a time neither would end
    code = (
        "import pathlib, sys, time\n"
        "mine, other = sys.argv[1:]\n"
        "pathlib.Path(mine).touch()\n"
        "end = time.monotonic() + 60\n"
        "while not pathlib.Path(other).exists():\n"
        "    assert time.monotonic() < end\n"
        "    time.sleep(.01)\n"
    )
    steps = [
        {"name": "left", "needs": [], "command": ["python", "-c", code, "l", "r"]},
        {"name": "right", "needs": [], "command": ["python", "-c", code, "r", "l"]},
    ]
    assert len(run(write(folder, steps, jobs=2), registry)) == 2


def test_killed_at_any_point_it_goes_on_where_it_was_and_leaves_no_child(folder, registry):
    waiting = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(600)"
    steps = [{"name": "one", **appending("log", "one")}, {"name": "two", "command": ["python", "-c", waiting]}]
    path = write(folder, steps)
    for number in (signal.SIGINT, signal.SIGKILL):
        Path("pid").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "slm_plugin", "run", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # whoever runs the tests in the background of a shell has them ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        child = int(_wait_for(lambda: lines("pid"))[0])
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        _wait_for(lambda child=child: not _is_alive(child))
        assert "Traceback" not in output
    assert lines("log") == ["one"]
    mended = [steps[0], {"name": "two", **appending("log", "two")}]
    assert [outcome.skipped for outcome in run(write(folder, mended), registry)] == [True, False]


def _wait_for(condition):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen within a minute")


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def test_all_mistakes_of_a_pipeline_file_are_told_at_once(folder, registry):
    steps = [
        {"name": "one", "train": "nowhere.yaml"},
        {"name": "two", "needs": ["on"], "command": ["python"]},
        {"name": "one", "needs": [], "command": ["python"]},
        {"name": "three", "evaluate": {"model": "m", "stage": "tts"}},
        {"name": "four", "evaluate": {"model": "n", "stage": "tts"}},
    ]
    more = {
        "skills": [{"skill": "qa", "probe": "text_mach"}],
        "gates": [{"stage": "asr", "skill": "q", "at_least": 0.5}],
    }
    with pytest.raises(ConfigError) as caught:
        plan.load(write(folder, steps, **more), registry)
    told = "\n".join(str(problem) for problem in caught.value.problems)
    for text in (
        "two steps are called 'one'",
        "two evaluations are of the stage 'tts'",
        "there is no file nowhere.yaml",
        "no step is called 'on'. Did you mean 'one'?",
        "no probe is called 'text_mach'. Did you mean 'text_match'?",
        "no step evaluates 'asr'",
        "no skill is called 'q'",
    ):
        assert text in told


def test_a_step_of_two_kinds_and_a_circle_are_refused(folder, registry):
    both = [{"name": "one", "train": "a.yaml", "command": ["python"]}]
    with pytest.raises(ConfigError, match=r"exactly one of .* given: train, command"):
        plan.load(write(folder, both), registry)
    circle = [
        {"name": "one", "needs": ["two"], "command": ["python"]},
        {"name": "two", "needs": ["one"], "command": ["python"]},
    ]
    with pytest.raises(ConfigError, match="in a circle"):
        plan.load(write(folder, circle), registry)


def test_the_summary_says_which_gates_are_not_met(folder, registry):
    steps = [
        {"name": "base_eval", "needs": [], "evaluate": {"model": "m", "stage": "base"}},
        {"name": "asr_eval", "needs": [], "evaluate": {"model": "m", "adapter": "a", "stage": "asr"}},
    ]
    more = {
        "skills": [{"skill": "qa", "probe": "text_match", "options": {"data": "d"}}],
        "gates": [
            {"stage": "base", "skill": "qa", "at_least": 0.9},
            {"stage": "asr", "skill": "qa", "at_most": 0.1},
        ],
    }
    pipeline = plan.load(write(folder, steps, **more), registry)
    Path("out/scores").mkdir(parents=True)
    for stage, value in (("base", 0.95), ("asr", 0.5)):
        cell = {"value": value, "n": 20, "better": "higher", "notes": {"recogniser_wer": 0.026}}
        Path(f"out/scores/{stage}.json").write_text(json.dumps({"qa": cell}))
    Path("a").mkdir()
    Path("a/slm.json").write_text(json.dumps({"replay": {"text": 7}}))
    summary = results.write_results(pipeline, [runner.Outcome("base_eval", 1.5, skipped=False)])
    assert "gate base: qa at least 0.9: 0.950, learned" in summary
    assert "qa: recogniser_wer 0.026" in summary
    assert "gate asr: qa at most 0.1: 0.500, STAGE NOT LEARNED" in summary
    assert Path("out/summary.txt").read_text() == summary
    assert json.loads(Path("out/counts.json").read_text()) == {"asr": {"text": 7}}
    assert json.loads(Path("out/matrix.json").read_text()) == {
        "stages": ["base", "asr"],
        "skills": ["qa"],
        "scores": [[0.95], [0.5]],
        "n": {"qa": 20},
        "better": {"qa": "higher"},
    }


def test_the_summary_says_that_steps_ran_at_once_only_if_they_did(folder, registry):
    wait = {"command": ["python", "-c", "import time; time.sleep(0.3)"], "needs": []}
    path = write(folder, [{"name": "one", **wait}, {"name": "two", **wait}])
    pipeline = plan.load(path, registry)
    apart = results.write_results(pipeline, run(path, registry))
    assert "time of each step\n" in apart
    assert "at once" not in apart
    assert "elapsed" not in apart
    # nothing ran again, and nothing ran at once
    assert "at once" not in results.write_results(pipeline, run(path, registry))
    code = (
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while not pathlib.Path(sys.argv[2]).exists(): time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
    )
    together = [
        {"name": mine, "needs": [], "command": ["python", "-c", code, mine, other]}
        for mine, other in (("left", "right"), ("right", "left"))
    ]
    path = write(folder, together, jobs=2)
    summary = results.write_results(plan.load(path, registry), run(path, registry))
    assert "time of each step (several ran at once)\n" in summary
    times = {line.split()[0]: float(line.split()[1]) for line in summary.splitlines() if line.endswith(" s")}
    assert times["elapsed"] < times["sum"]


def test_the_summary_lists_the_replayed_rows_of_every_stage(folder, registry):
    steps = []
    for name in ("asr", "tts", "sqa", "full"):
        Path(f"{name}.yaml").write_text(yaml.safe_dump({"output_dir": f"out/{name}"}))
        Path(f"out/{name}").mkdir(parents=True)
        replay = {} if name == "asr" else {"text": 7, "speech": 9}
        Path(f"out/{name}/slm.json").write_text(json.dumps({"stage": name, "replay": replay}))
        steps.append({"name": name, "train": f"{name}.yaml"})
    # tts has no evaluation; sqa is scored under another name, and full is a model without an adapter
    steps += [
        {"name": "eval_sqa", "evaluate": {"model": "m", "adapter": "out/sqa", "stage": "answers"}},
        {"name": "eval_full", "evaluate": {"model": "out/full", "stage": "all"}},
    ]
    pipeline = plan.load(write(folder, steps), registry)
    summary = results.write_results(pipeline, [])
    replayed = {"text": 7, "speech": 9}
    assert results.replay_counts(pipeline) == {"tts": replayed, "answers": replayed, "all": replayed}
    assert "rows replayed\n  tts: text 7, speech 9\n  answers: text 7, speech 9\n  all: text 7, speech 9\n" in summary
    assert json.loads(Path("out/counts.json").read_text())["tts"] == replayed


def test_the_plan_says_what_would_run_and_why(folder, registry):
    Path("data").write_text("1")
    steps = [
        {"name": "one", **appending("log", "one"), "inputs": ["data"]},
        {"name": "two", **appending("log", "two"), "outputs": ["log"]},
        {"name": "apart", "needs": [], **appending("apart.log", "apart"), "outputs": ["apart.log"]},
    ]
    path = write(folder, steps)

    def told():
        return {found.name: list(found.reasons) for found in runner.intentions(plan.load(path, registry))}

    assert told() == {name: ["it has not been finished"] for name in ("one", "two", "apart")}
    run(path, registry)
    assert told() == {"one": [], "two": [], "apart": []}
    Path("data").write_text("2")
    Path("apart.log").unlink()
    assert told() == {"one": ["data changed"], "two": ["step one runs again"], "apart": ["apart.log is missing"]}
    write(folder, [{**steps[0], "environment": {"A": "1"}}, *steps[1:]])
    assert told()["one"] == ["its definition changed", "data changed"]
    # looking ran nothing: the output of "two" was cleared once, before its only run
    assert lines("log") == ["two"]


def test_the_lineage_says_how_every_result_came_about(folder, registry):
    Path("data").write_text("1")
    steps = [{"name": "one", **appending("log", "one"), "inputs": ["data"], "outputs": ["log"]}]
    run(write(folder, steps), registry)
    found = json.loads(Path("out/lineage.json").read_text())["one"]
    assert found["kind"] == "command"
    # blake2b with 16 bytes of the one byte "1"
    assert found["inputs"]["file data"] == "cea3878a334b"
    assert found["outputs"].keys() == {"log"}
    assert found["versions"]["slm_plugin"]
    assert found["started"] <= found["ended"]
    code = found["code"]
    run(write(folder, [*steps, {"name": "two", **appending("log", "two")}]), registry)
    assert json.loads(Path("out/lineage.json").read_text()).keys() == {"one", "two"}
    assert len(code) == 12


def test_variants_share_the_rows_of_their_common_prefix(folder, registry):
    rows = [("base", {}), ("asr_plain", {"variants": ["plain"]}), ("asr_replay", {"variants": ["replay"]})]
    steps = [
        {"name": f"eval_{name}", "needs": [], "evaluate": {"model": "m", "stage": name, "label": name[:3], **more}}
        for name, more in rows
    ]
    skills = [{"skill": "qa", "probe": "text_match", "options": {"data": "d"}}]
    pipeline = plan.load(write(folder, steps, skills=skills), registry)
    Path("out/scores").mkdir(parents=True)
    for number, (name, _) in enumerate(rows):
        cell = {"value": number / 4, "n": 4, "better": "higher"}
        Path(f"out/scores/{name}.json").write_text(json.dumps({"qa": cell}))
    results.write_results(pipeline, [])
    found = json.loads(Path("out/variants.json").read_text())
    assert {name: matrix["scores"] for name, matrix in found.items()} == {
        "plain": [[0.0], [0.25]],
        "replay": [[0.0], [0.5]],
    }
    assert found["plain"]["stages"] == ["bas", "asr"]
    summary = Path("out/summary.txt").read_text()
    assert re.findall(r"^(variant \w+|asr .*\S)$", summary, re.MULTILINE) == [
        "variant plain", "asr              0.250", "variant replay", "asr              0.500",
    ]  # fmt: skip
    assert json.loads(Path("out/matrix.json").read_text()) == found["plain"]


def test_what_a_row_is_called_evaluates_nothing_again(folder, registry):
    step = {"name": "eval", "evaluate": {"model": "m", "stage": "base"}}
    before = plan.load(write(folder, [step]), registry)
    step["evaluate"]["label"] = "the base"
    step["evaluate"]["variants"] = ["plain"]
    after = plan.load(write(folder, [step]), registry)
    assert step_inputs(before.steps[0], before, {}) == step_inputs(after.steps[0], after, {})


def test_the_plan_is_told_on_the_command_line_and_nothing_runs(folder):
    path = write(folder, [{"name": "one", **appending("log", "one")}, {"name": "two", **appending("log", "two")}])
    result = CliRunner().invoke(make_app(), ["run", "--dry-run", str(path)])
    assert result.output.splitlines() == ["one: run: it has not been finished", "two: run: it has not been finished"]
    assert not Path("out").exists()
    assert CliRunner().invoke(make_app(), ["run", str(path)]).exit_code == 0
    result = CliRunner().invoke(make_app(), ["run", "--dry-run", str(path)])
    assert result.output.splitlines() == ["one: finished before", "two: finished before"]
    assert lines("log") == ["one", "two"]


def test_logs_stream_behind_the_names_of_their_steps(folder):
    # a bar that rewrites its line is shown in its last state
    code = "print('[loud] begin'); print('1/2\\r2/2'); print(end='the end')"
    path = write(folder, [{"name": "one", "command": ["python", "-c", code]}])
    result = CliRunner().invoke(make_app(), ["run", "--logs", str(path)])
    shown = [line for line in result.output.splitlines() if line.startswith("one | ")]
    assert shown == ["one | [loud] begin", "one | 2/2", "one | the end"]
    path = write(folder, [{"name": "two", "command": ["python", "-c", code]}])
    assert "two | " not in CliRunner().invoke(make_app(), ["run", str(path)]).output
    assert Path("out/logs/two.log").read_text().endswith("the end")
