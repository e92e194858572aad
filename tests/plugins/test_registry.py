from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import slm_plugin
from slm_plugin import hookimpl
from slm_plugin.errors import PluginError
from slm_plugin.hookspecs import RegisterHooks, StageHooks
from slm_plugin.plugins import BUILT_INS, Registry, stage_manager

HOOKS = [name for group in (RegisterHooks, StageHooks) for name in vars(group) if name.startswith("slm_")]


def plugin(**functions: object) -> object:
    """Make a plugin object whose hooks are the given functions."""
    return type("Plugin", (), {name: staticmethod(hookimpl(function)) for name, function in functions.items()})()


def test_the_built_in_list_is_exactly_the_modules_that_register_something():
    found = set()
    data = ("speech", "alignment", "prepare.corpora", "prepare.voices")
    for folder in ("stages", "mitigations", "merge", "eval.probes", *data):
        package = importlib.import_module(f"slm_plugin.{folder}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            content = vars(importlib.import_module(module.name))
            if any(name.startswith("slm_register_") for name in content):
                found.add(module.name)
    assert found == set(BUILT_INS)
    assert len(BUILT_INS) == len(set(BUILT_INS))


def test_every_built_in_registers_through_hooks_under_names_of_its_own():
    registry = Registry.load(entry_points=False)
    assert registry.stages.names() == ["asr", "llm", "sqa", "tts"]
    modules = [name.rsplit(".", 1)[1] for name in BUILT_INS if name.startswith("slm_plugin.mitigations.")]
    # a mitigation's file has its name
    assert registry.mitigations.names() == sorted(modules)


@pytest.mark.parametrize("removed", BUILT_INS)
def test_removing_one_built_in_leaves_all_others_as_they_were(removed: str, monkeypatch: pytest.MonkeyPatch):
    def offers(registry: Registry) -> set[tuple[str, str]]:
        return {(kind, name) for kind, catalogue in vars(registry).items() for name in catalogue.names()}

    everything = offers(Registry.load(entry_points=False))
    monkeypatch.setattr("slm_plugin.plugins.BUILT_INS", tuple(name for name in BUILT_INS if name != removed))
    left = offers(Registry.load(entry_points=False))
    monkeypatch.setattr("slm_plugin.plugins.BUILT_INS", (removed,))
    assert everything - left == offers(Registry.load(entry_points=False))
    assert everything - left


def test_a_built_in_of_one_kind_imports_no_other_mitigation(root):
    sources = sorted((root / "slm_plugin/mitigations").glob("*.py"))
    assert sources
    for path in sources:
        others = {other.stem for other in sources} - {path.stem, "__init__", "protocol"}
        imported = set(re.findall(r"slm_plugin\.mitigations(?: import |\.)(\w+)", path.read_text(encoding="utf-8")))
        assert not imported & others, f"{path.name} imports {imported & others}"


def test_a_misspelt_register_hook_is_refused_with_the_nearest_name():
    stranger = plugin(slm_register_stage=lambda register: None)
    with pytest.raises(PluginError, match="Did you mean 'slm_register_stages'") as caught:
        Registry.load(extra=[stranger], entry_points=False)
    assert "slm_register_stage'" in str(caught.value)


def test_a_misspelt_stage_hook_is_refused_with_the_nearest_name():
    with pytest.raises(PluginError, match="Did you mean 'slm_extra_loss'"):
        stage_manager([plugin(slm_exta_loss=lambda outputs: None)])


def test_an_argument_that_a_hook_does_not_have_is_refused():
    with pytest.raises(PluginError, match="modell") as caught:
        stage_manager([plugin(slm_stage_start=lambda modell: None)])
    assert "slm_stage_start" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_installed_plugin_that_cannot_be_imported_is_one_readable_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[slm_plugin]\nbroken = no_such_package\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="cannot be loaded: ModuleNotFoundError: No module named 'no_such_package'"):
        Registry.load()


@pytest.mark.parametrize(
    ("hook", "name", "noun"),
    [
        ("slm_register_stages", "asr", "stage"),
        ("slm_register_mitigations", Registry.load(entry_points=False).mitigations.names()[0], "mitigation"),
    ],
)
def test_a_built_in_name_cannot_be_taken(hook: str, name: str, noun: str):
    with pytest.raises(PluginError, match=f"two plugins register the {noun} '{name}'; rename one of them"):
        Registry.load(extra=[plugin(**{hook: lambda register: register(name, object)})], entry_points=False)


def test_two_outsiders_cannot_take_one_name():
    def offer(register):
        register("mine", object)

    twice = [plugin(slm_register_probes=offer), plugin(slm_register_probes=offer)]
    with pytest.raises(PluginError, match="two plugins register the probe 'mine'"):
        Registry.load(extra=twice, entry_points=False)


@pytest.mark.parametrize("kind", [name.removeprefix("slm_register_") for name in HOOKS if "_register_" in name])
def test_every_kind_of_capability_can_be_registered_from_outside(kind: str):
    class Offered:
        pass

    outsider = plugin(**{f"slm_register_{kind}": lambda register: register("mine", Offered)})
    catalogue = getattr(Registry.load(extra=[outsider], entry_points=False), kind)
    assert "mine" in catalogue
    assert catalogue.get("mine") is Offered


def test_asking_for_a_name_that_nobody_registered_offers_the_nearest(registry: Registry):
    with pytest.raises(PluginError, match=r"no stage is called 'ttss'\. Did you mean 'tts'\? Registered: asr, llm"):
        registry.stages.get("ttss")


def test_hooks_fire_in_the_order_of_the_configuration():
    fired: list[str] = []
    instances = [plugin(slm_export=lambda name=name: fired.append(name)) for name in ("first", "second", "third")]
    stage_manager(instances).hook.slm_export(export_dir=None)
    assert fired == ["first", "second", "third"]


def test_contributions_add_up_and_none_replaces_another():
    instances = [plugin(slm_extend_tokenizer=lambda name=name: [name]) for name in ("<|a|>", "<|b|>")]
    assert stage_manager(instances).hook.slm_extend_tokenizer(tokenizer=None) == [["<|a|>"], ["<|b|>"]]


def test_an_implementation_may_take_fewer_arguments():
    seen: list[object] = []
    manager = stage_manager([plugin(slm_stage_start=lambda model: seen.append(model))])
    manager.hook.slm_stage_start(run="run", model="model")
    assert seen == ["model"]


def test_nothing_fires_on_a_manager_made_for_another_stage():
    fired: list[str] = []
    stage_manager([plugin(slm_export=lambda: fired.append("other"))])
    stage_manager([]).hook.slm_export(export_dir=None)
    assert fired == []


def test_every_hook_says_when_it_fires():
    for group in (RegisterHooks, StageHooks):
        for name in (name for name in vars(group) if name.startswith("slm_")):
            text = getattr(group, name).__doc__
            assert group is RegisterHooks or text.startswith("Fire "), name
            assert len(text.splitlines()[0]) > 30, name


def test_the_package_exports_what_a_plugin_author_needs():
    assert slm_plugin.hookimpl is hookimpl
    assert len(HOOKS) == 17
