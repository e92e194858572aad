from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest
from typer.main import get_command

from slm_plugin import errors, reference
from slm_plugin.cli import make_app
from slm_plugin.docstrings import markdown
from slm_plugin.errors import SlmError
from slm_plugin.hookspecs import RegisterHooks, StageHooks
from slm_plugin.reference_code import command_page, errors_page, metrics_page
from slm_serve.app import create_routes
from slm_serve.ops.settings import Settings
from slm_serve.protocol import AudioOutput, ChatCompletion, ChatRequest, InputAudio, Usage, UserMessage
from slm_serve.protocol_audio import SpeechRequest
from slm_serve.reference import http_page


def test_the_committed_pages_are_what_the_code_says(root: Path):
    for name, page in reference.every_page().items():
        assert (root / "docs/reference" / name).read_text(encoding="utf-8") == page(), f"{name}: run make docs"


def test_every_hook_is_documented_with_its_exact_arguments():
    page = reference.hooks_page()
    hooks = {name: function for group in (RegisterHooks, StageHooks) for name, function in vars(group).items()}
    documented = {name: function for name, function in hooks.items() if name.startswith("slm_")}
    assert len(documented) == 17
    for name, function in documented.items():
        shown = page.split(f"### {name}\n")[1].split("```")[1]
        arguments = list(inspect.signature(function).parameters)[1:]
        assert re.findall(r"(?:\(|, |\n    )(\w+): ", shown) == arguments


def test_every_key_has_a_meaning():
    rows = [line for name, page in reference.PAGES.items() if "keys" in name for line in page().splitlines()]
    keys = [re.split(r"(?<!\\)\|", line) for line in rows if line.startswith("| `")]
    assert len(keys) > 20
    assert [cells[1].strip() for cells in keys if not cells[4].strip()] == []


def test_check_passes_on_fresh_pages_and_names_a_page_that_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert reference.main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == set(reference.every_page())
    assert reference.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "hooks.md").write_text("old", encoding="utf-8")
    assert reference.main(["--check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "hooks.md") in said
    assert "slm-keys.md" not in said
    assert (tmp_path / "hooks.md").read_text(encoding="utf-8") == "old"


def test_every_page_of_the_folder_is_written_from_the_code(root: Path):
    # the conformance table has a generator and a test of its own
    written = {*reference.every_page(), "serving-api.md"}
    assert {path.name for path in (root / "docs/reference").iterdir()} == written


def test_every_command_and_option_is_on_the_page_of_the_command_line():
    page = command_page()
    command = get_command(make_app())
    names = [
        *(name for name, found in command.commands.items() if not hasattr(found, "commands")),
        "replay synthesise",
    ]
    assert [name for name in names if f"`slm {name}`\n" not in page] == []
    serve = command.commands["serve"]
    assert [option for each in serve.params for option in each.opts if f"`{option}" not in page] == []


def test_every_error_of_a_user_is_on_the_page_of_errors():
    found = [name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, SlmError)]
    assert re.findall(r"^## (\w+)$", errors_page(), re.MULTILINE) == found
    # the tree of the docstring is drawn by hand
    assert re.findall(r"^(?:[├└]── )?(\w+Error)\b", errors_page(), re.MULTILINE) == found


def test_every_metric_has_its_formula_and_source():
    page = metrics_page()
    for name in ("average_score", "backward_transfer", "forgetting", "forward_transfer", "forget_percent"):
        assert "Source: " in page.split(f"### {name}\n")[1].split("###")[0]


def test_every_route_and_parameter_is_on_the_page_of_the_server():
    page = http_page()
    app = create_routes(Settings())
    routes = [(method, path) for path, methods in app.openapi()["paths"].items() for method in methods]
    assert {("post", "/v1/chat/completions"), ("get", "/health")} <= set(routes)
    assert re.findall(r"^## (GET|POST) (\S+)$", page, re.MULTILINE) == [(m.upper(), path) for m, path in routes]
    for model in (ChatRequest, ChatCompletion, SpeechRequest, UserMessage, InputAudio, AudioOutput, Usage):
        table = re.split(rf"^#+ (?:\w+: )?{model.__name__}$", page, flags=re.MULTILINE)[1].split("\n#")[0]
        assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(model.model_fields)


def test_every_reference_of_the_openapi_document_leads_somewhere():
    document = create_routes(Settings()).openapi()
    references = re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document))
    assert len(references) > 10
    for reference_ in references:
        found = document
        for step in reference_.split("/"):
            found = found[step.replace("~1", "/").replace("~0", "~")]
        assert "properties" in found


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Fire ``slm_x`` of :class:`a.B`.", "Fire `slm_x` of `a.B`."),
        ("Do.\n\nReturns:\n    One\n    thing.", "Do.\n\n*Returns:* One thing."),
        ("As follows::\n\n    x = 1\n\nThen.", "As follows:\n\n```\nx = 1\n```\n\nThen."),
    ],
)
def test_docstrings_become_markdown(docstring: str, expected: str):
    assert markdown(docstring) == expected
