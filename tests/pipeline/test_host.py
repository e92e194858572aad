"""A pipeline over the real host: warm forks, two processes that train together, export, evaluation and results."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from host.world import UNITS, export_config, train_config, write_data
from tiny_models import make_model

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a model, data, host YAMLs and a pipeline over them."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "llm")
    write_data(tmp_path / "data")
    slm = {"stage": "asr", "units": {"count": UNITS}}
    files = {
        "base.yaml": export_config(Path("llm"), Path("out/base")),
        "asr.yaml": train_config(Path("out/base"), Path("data"), Path("out/asr"), slm=slm),
        "model.yaml": export_config(Path("out/base"), Path("out/model"), adapter=Path("out/asr"), slm={}),
    }
    for name, config in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(config))
    rows = (tmp_path / "data" / "llm.jsonl").read_text()
    (tmp_path / "questions.jsonl").write_text(rows)
    pipeline = {
        "output": "out",
        "jobs": 2,
        "warm_host": True,
        "environment": {"OMP_NUM_THREADS": "1"},
        "skills": [{"skill": "chat", "probe": "text_match", "options": {"data": "questions.jsonl"}}],
        "gates": [{"stage": "asr", "skill": "chat", "at_least": 0.99}],
        "steps": [
            {"name": "base", "export": "base.yaml"},
            {"name": "asr", "train": "asr.yaml", "processes": 2},
            {"name": "model", "export": "model.yaml"},
            {
                "name": "eval",
                "needs": ["asr"],
                "evaluate": {"model": "out/base", "adapter": "out/asr", "stage": "asr"},
            },
        ],
    }
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(pipeline))
    return tmp_path


def slm_run():
    return subprocess.run(
        [sys.executable, "-m", "slm_plugin", "run", "pipeline.yaml"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_pipeline_trains_exports_evaluates_and_resumes(folder):
    done = slm_run()
    assert done.returncode == 0, done.stdout + done.stderr
    matrix = json.loads((folder / "out" / "matrix.json").read_text())
    assert matrix["stages"] == ["asr"]
    assert matrix["n"] == {"chat": 10}
    # a random model after three steps answers nothing right, and the summary says so
    assert matrix["scores"] == [[0.0]]
    assert "STAGE NOT LEARNED" in (folder / "out" / "summary.txt").read_text()
    # nothing was replayed
    assert json.loads((folder / "out" / "counts.json").read_text()) == {"asr": {}}
    assert "total train batch size (w. parallel, distributed & accumulation) = 8" in (
        (folder / "out" / "logs" / "asr.log").read_text().lower()
    )
    assert (folder / "out" / "model" / "model.safetensors").is_file()
    again = slm_run()
    assert again.stdout.count("finished before") >= 4
    assert "started" not in again.stdout


def test_killed_while_the_host_trains_it_leaves_no_process_and_resumes(folder):
    config = yaml.safe_load((folder / "asr.yaml").read_text())
    (folder / "asr.yaml").write_text(yaml.safe_dump({**config, "max_steps": 100_000}))
    log = (folder / "run.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "slm_plugin", "run", "pipeline.yaml"], stdout=log, stderr=subprocess.STDOUT
    )
    trained = folder / "out" / "asr" / "trainer_log.jsonl"
    wait_for(lambda: trained.exists() or process.poll() is not None)
    assert process.poll() is None, (folder / "run.log").read_text()
    children = descendants(process.pid)
    assert len(children) >= 3, "the importing process and two that train"
    process.send_signal(signal.SIGKILL)
    process.wait()
    log.close()
    wait_for(lambda: not any(is_alive(pid) for pid in children))
    (folder / "asr.yaml").write_text(yaml.safe_dump(config))
    done = slm_run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "base: finished before" in done.stdout


def wait_for(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within five minutes"
        time.sleep(0.1)


def descendants(pid):
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        children = []
        for task in Path(f"/proc/{parent}/task").iterdir():
            children += [int(word) for word in (task / "children").read_text().split()]
        found += children
        todo += children
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False
