"""The code blocks of the documents, and the folder in which those of one page run one after the other.

A block runs unless the line above it says why not::

    <!-- needs a GPU -->              no test runs it; what it may need is listed in NEEDS
    <!-- run by tests/x/test_y.py --> that test runs it
    <!-- slow -->                     runs with the rest of its page, in make test-all only

A block with ``title="NAME"`` is the file of that name: it is written before what follows runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "docs" / "reference"
NEEDS = ("a GPU", "the hub", "a package index", "an hour", "several machines", "trained models", "your recordings")
LANGUAGES = ("bash", "json", "python", "toml", "yaml")
PICTURES = ("mermaid", "text")
"""What a reader looks at and nobody runs: drawings, and what a program prints."""

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]+) -->\n)?^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_STOP_S = 60


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: The document.
        line: Line of its first row of code.
        language: First word of its information string.
        title: Name of the file that it is; empty for none.
        text: The code.
        mark: What the comment above it says; empty for none.
    """

    page: Path
    line: int
    language: str
    title: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def slow(self) -> bool:
        return self.mark == "slow"

    @property
    def runs(self) -> bool:
        """Whether it runs with its page."""
        return self.language in LANGUAGES and (not self.mark or self.slow)


def pages() -> list[Path]:
    """Return the documents whose code must run; what is generated is compared with its source instead."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if GENERATED not in path.parents]


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks of a document, in order."""
    content = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(content):
        language, _, rest = match["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', rest)
        line = content.count("\n", 0, match.start("text")) + 1
        found.append(Block(page, line, language, title[1] if title else "", match["text"], match["mark"] or ""))
    return found


def parsed(block: Block) -> Any:
    """Return what a block of data says."""
    match block.language:
        case "yaml":
            return yaml.safe_load(block.text)
        case "json":
            return json.loads(block.text)
        case "toml":
            return tomllib.loads(block.text)
    raise AssertionError(f"{block} holds no data")


def module_of(block: Block) -> ModuleType:
    """Return a block of Python as a module, which is in ``sys.modules`` under its own name."""
    name = Path(block.title).stem or f"{block.page.stem.lower()}_{block.line}".replace("-", "_")
    module = ModuleType(name)
    # pydantic looks the module of a model up to read the docstrings of its fields
    sys.modules[name] = module
    exec(compile(block.text, str(block), "exec"), vars(module))
    return module


class Folder:
    """A folder that looks like the top of the repository, in which blocks run as a reader would run them.

    Args:
        path: An empty folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: list[int] = []
        # copies, so that what a block writes beside what it reads stays out of the repository
        for name in ("examples", "dataset_info", "benchmarks"):
            shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def run(self, block: Block) -> str:
        """Write the file that a block is, or run it; return what it printed."""
        if block.title:
            target = self.path / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            return ""
        command = {
            "bash": ["bash", "-euo", "pipefail", "-c", block.text],
            "python": [sys.executable, "-c", block.text],
        }.get(block.language)
        if command is None:
            parsed(block)
            return ""
        log = self.path / f".{block.page.stem}-{block.line}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.path, env=self._environment(), stdout=output, stderr=output, start_new_session=True
            )
            # what is started in the background keeps the group, and ends with the page
            self._groups.append(process.pid)
            status = process.wait()
        said = log.read_text(encoding="utf-8", errors="replace")
        assert status == 0, f"{block} ended with status {status}:\n{said[-4000:]}"
        return said

    def close(self) -> None:
        """End what blocks left running."""
        for group in self._groups:
            limit = time.monotonic() + _STOP_S
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGTERM)
                while time.monotonic() < limit:
                    time.sleep(0.2)
                    os.killpg(group, 0)

    def _environment(self) -> dict[str, str]:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        # modules that a page writes are found as if they were installed
        return {**os.environ, "PATH": programs, "PYTHONPATH": str(self.path), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
