"""The plugin inside the host's own process: what it patches, and what a different host or a broken plugin does."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slm_plugin.host import activation, surface

TIMEOUT_SECONDS = 300


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def test_starting_python_imports_nothing_of_ours_but_the_finder():
    code = "import sys; print(sorted(name for name in sys.modules if name.startswith('slm')))"
    assert python(code).stdout.strip() == "['slm_plugin_autoload']"


def test_switched_off_there_is_no_finder():
    code = "import sys; print([finder for finder in sys.meta_path if 'Host' in str(finder)])"
    assert python(code).stdout != "[]\n"
    assert python(code, SLM_PLUGIN_DISABLE="1").stdout == "[]\n"


def test_every_patched_module_has_its_symbols_in_the_surface():
    assert set(activation.PATCHES) <= set(surface.SURFACE)


def uses_of_the_host(path: Path) -> set[tuple[tuple[str, ...], str]]:
    """Symbols of the host that a module imports, or that its ``patch`` takes from a module it is given.

    Each with the host's modules that it may be from: several if one ``patch`` serves several.
    """
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = f"slm_plugin.host.{path.stem}"
    patched = tuple(theirs for theirs, patch in activation.PATCHES.items() if patch == ours)
    given = [node.args.args[0].arg for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "patch"]
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("llamafactory"):
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                if module in surface.SURFACE:
                    imported[alias.asname or alias.name] = (module,)
                else:
                    found.add(((node.module,), alias.name))
    names = {**imported, **(dict.fromkeys(given, patched) if patched else {})}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            found.add((names[node.value.id], node.attr))
    return found


def test_every_symbol_of_the_host_that_is_imported_or_patched_is_in_the_surface(root: Path):
    used = {use for path in (root / "slm_plugin/host").rglob("*.py") for use in uses_of_the_host(path)}
    assert len(used) >= 15
    known = {(module, name) for module, symbols in surface.SURFACE.items() for name in symbols}
    assert {(modules, name) for modules, name in used if not {(module, name) for module in modules} & known} == set()


def test_every_argument_of_the_host_that_is_read_is_in_the_surface(root: Path):
    symbols = [symbol for symbols in surface.SURFACE.values() for symbol in symbols]
    known = {symbol.split(".")[1] for symbol in symbols if "Arguments." in symbol}
    text = "".join(path.read_text(encoding="utf-8") for path in (root / "slm_plugin/host").rglob("*.py"))
    read = set(re.findall(r"\b(?:data|model|finetuning)_args\.(?!py\b)(\w+)", text))
    assert "template" in read
    assert read <= known


@pytest.mark.host
def test_this_host_has_every_symbol_with_the_expected_signature():
    code = (
        "import importlib\n"
        "from slm_plugin.host import surface\n"
        "for name in surface.SURFACE:\n"
        "    for text in surface.differences(importlib.import_module(name)):\n"
        "        print(text)\n"
    )
    # without the plugin in the way: the host as it is
    done = python(code, SLM_PLUGIN_DISABLE="1")
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr


@pytest.mark.host
def test_a_host_that_differs_keeps_working_and_the_block_says_what_differs():
    code = (
        "import sys\n"
        "from slm_plugin.host import surface\n"
        "surface.SURFACE['llamafactory.model.loader']['patch_tokenizer'] = ('tokenizer', 'arguments')\n"
        "from llamafactory.model import loader\n"
        "print(hasattr(loader.patch_tokenizer, '__wrapped__'))\n"
        "from slm_plugin.errors import HostError\n"
        "try:\n"
        "    surface.require()\n"
        "except HostError as error:\n"
        "    print(error)\n"
    )
    told = python(code).stdout.splitlines()
    assert told[-2] == "False"
    assert told[-1] == (
        "this slm_plugin is written for LLaMA-Factory 0.9.5 and 0.9.6.dev0, installed is 0.9.5:"
        " llamafactory.model.loader.patch_tokenizer takes (tokenizer, model_args), expected (tokenizer, arguments)."
    )


@pytest.mark.host
def test_a_broken_plugin_does_not_break_a_host_without_a_block():
    code = (
        "import slm_plugin.plugins\n"
        "slm_plugin.plugins.BUILT_INS = ('no_such_module',)\n"
        "from llamafactory.data import converter\n"
        "print(sorted(name for name in converter.DATASET_CONVERTERS if name.startswith('slm')))\n"
    )
    done = python(code)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "slm_plugin is off: ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
