"""The ``slm.merge`` block: what is accepted, and what is said of mistakes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from slm_plugin.config import parse_block
from slm_plugin.errors import ConfigError
from slm_plugin.merge import mergekit_methods
from slm_plugin.merge.plan import parse_merge

TIES = {
    "method": "ties",
    "base_model": "runs/base",
    "models": [{"model": "runs/a", "weight": 0.9, "density": 0.9}, {"model": "runs/b", "weight": 0.1}],
}


def said(block, registry):
    with pytest.raises(ConfigError) as caught:
        parse_merge(block, registry, "x.yaml: slm.merge")
    return str(caught.value)


def test_a_block_is_parsed_with_the_defaults_of_its_method(registry):
    plan = parse_merge(TIES, registry, "slm.merge")
    assert plan.method.options.model_dump(by_alias=True) == {
        "normalize": True,
        "lambda": 1.0,
        "int8_mask": False,
        "rescale": False,
    }
    assert [member.options.density for member in plan.members] == [0.9, 1.0]
    assert (plan.seed, plan.engine, plan.dtype) == (1126, "own", None)


def test_values_for_all_models_may_stand_among_the_parameters(registry):
    block = {**TIES, "parameters": {"density": 0.5, "lambda": 0.8, "normalize": False}}
    plan = parse_merge(block, registry, "slm.merge")
    assert [member.options.density for member in plan.members] == [0.9, 0.5]
    assert plan.method.options.lambda_ == 0.8


def test_the_block_is_part_of_slm_and_its_problems_are_listed_with_the_others(registry):
    with pytest.raises(ConfigError) as caught:
        parse_block({"stage": "asrr", "merge": {**TIES, "methodd": 1}}, registry)
    text = str(caught.value)
    assert "slm.stage: no stage is called 'asrr'" in text
    assert "slm.merge.methodd: unknown key. Did you mean 'method'?" in text
    assert parse_block({"merge": TIES}, registry).merge.method_name == "ties"


def test_every_problem_is_named_at_once_with_the_nearest_name(registry):
    text = said(
        {
            "method": "ties",
            "models": [
                {"model": "a", "wieght": 0.5},
                {"weight": 0.5},
                {"model": "c", "weight": float("nan"), "density": 1.5},
                {"model": "c", "weight": 1},
            ],
            "parameters": {"normalise": True},
            "dtype": "bf16",
            "seed": -1,
        },
        registry,
    )
    for part in (
        "x.yaml: slm.merge.dtype: 'bf16' is not accepted. Did you mean 'bfloat16'?",
        "x.yaml: slm.merge.seed: ",
        "x.yaml: slm.merge.parameters.normalise: unknown key. Did you mean 'normalize'?",
        "x.yaml: slm.merge.base_model: is required: ties works on differences from a base.",
        "x.yaml: slm.merge.models[0].wieght: unknown key. Did you mean 'weight'?",
        "x.yaml: slm.merge.models[0].weight: is required.",
        "x.yaml: slm.merge.models[1].model: is required",
        "x.yaml: slm.merge.models[2].weight: must be a finite number",
        "x.yaml: slm.merge.models[2].density: ",
        "x.yaml: slm.merge.models[3].model: c is named twice",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"method": "tees", "models": [{"model": "a"}]}, "no merge method is called 'tees'. Did you mean 'ties'?"),
        ({"models": [{"model": "a"}]}, "method: is required."),
        ({"method": "linear", "models": []}, "models: "),
        ({"method": "linear", "models": ["a"]}, "models[0]: "),
        (
            {"method": "linear", "models": [{"model": "a", "weight": 1}, {"model": "b", "weight": -1}]},
            "models: the weights 1, -1 sum to zero, so they cannot be normalised",
        ),
        ({**TIES, "models": [{"model": "runs/base", "weight": 1}]}, "models[0]: is the base_model, whose difference"),
        ({**TIES, "models": [{"model": "runs/base"}]}, "models: holds the base_model alone"),
        ({**TIES, "engine": "mine"}, "engine: 'mine' is not accepted"),
    ],
)  # fmt: skip
def test_one_mistake_is_one_line(block, expected, registry):
    text = said(block, registry)
    assert expected in text
    assert "\n" not in text


def test_weights_that_sum_to_zero_are_fine_where_nothing_is_divided(registry):
    models = [{"model": "a", "weight": 1}, {"model": "b", "weight": -1}]
    block = {"method": "linear", "models": models, "parameters": {"normalize": False}}
    assert len(parse_merge(block, registry, "slm.merge").members) == 2


def test_the_names_are_those_that_mergekit_registers(registry):
    from mergekit.merge_methods.registry import registered_methods

    theirs = {method.spec.name for method in registered_methods()}
    assert set(registry.merges.names()) == theirs
    assert set(mergekit_methods.NAMES) < theirs


def test_every_method_of_our_own_has_mergekit_s_options_and_defaults(registry):
    from mergekit import merge_methods

    for name in sorted(set(registry.merges.names()) - set(mergekit_methods.NAMES)):
        kind, spec = registry.merges.get(name), merge_methods.get(name).spec
        for model, theirs in ((kind.Options, spec.shared_parameters), (kind.MemberOptions, spec.input_parameters)):
            for field_name, field in model.model_fields.items():
                (parameter,) = [item for item in theirs if item.name == (field.alias or field_name)]
                assert field.is_required() == parameter.required, (name, field_name)
                assert field.is_required() or field.default == parameter.default, (name, field_name)


def test_options_of_mergekit_s_methods_are_checked_by_its_own_specification(registry):
    block = {"method": "slerp", "base_model": "b", "models": [{"model": "a"}], "parameters": {"t": 0.5}}
    assert parse_merge(block, registry, "slm.merge").engine == "mergekit"
    gradient = {"t": [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.5}]}
    assert parse_merge({**block, "parameters": gradient}, registry, "slm.merge").method.options.t == gradient["t"]
    assert "parameters.t: is required." in said({**block, "parameters": {}}, registry)
    assert "parameters.t: must be of type float" in said({**block, "parameters": {"t": "half"}}, registry)
    assert "parameters.tt: unknown key. Did you mean 't'?" in said(
        {**block, "parameters": {"t": 0.5, "tt": 1}}, registry
    )
    assert "engine: slerp runs in mergekit only, got own." in said({**block, "engine": "own"}, registry)
    three = {**block, "models": [{"model": "a"}, {"model": "c"}]}
    assert "models: slerp takes exactly 1 model(s) beside its base_model, got 2." in said(three, registry)
    assert "base_model: is required" in said({**block, "base_model": None}, registry)
    stock = {"method": "model_stock", "base_model": "b", "models": [{"model": "a"}]}
    assert "takes at least 2 model(s) beside its base_model, got 1" in said(stock, registry)


def test_without_mergekit_its_methods_say_how_to_install_it(registry, monkeypatch):
    monkeypatch.setattr(mergekit_methods.importlib.util, "find_spec", lambda name: None)
    block = {"method": "slerp", "base_model": "b", "models": [{"model": "a"}], "parameters": {"t": 0.5}}
    text = said(block, registry)
    assert text == (
        "x.yaml: slm.merge.method: runs in mergekit, which is not installed: pip install 'slm-plugin[merge]'."
    )
    assert parse_merge(TIES, registry, "slm.merge").method_name == "ties"


def test_registering_imports_neither_mergekit_nor_transformers():
    code = (
        "import sys; from slm_plugin.plugins import Registry; from slm_plugin.merge.plan import parse_merge;"
        f"parse_merge({TIES!r}, Registry.load(entry_points=False), 'x');"
        "print([n for n in ('mergekit', 'transformers', 'peft') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def two(method, parameters=None, **options):
    models = [{"model": "a", "weight": 0.5, **options}, {"model": "c", "weight": 0.5, **options}]
    return {"method": method, "base_model": "b", "models": models, "parameters": parameters or {}}


def of_t(value):
    return {"method": "slerp", "base_model": "b", "models": [{"model": "a"}], "parameters": {"t": value}}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        # mergekit itself takes any number, and fails or errs in silence when the tensors are there
        (two("della", density=1.5), "models[0].density: must be from 0 to 1, got 1.5."),
        (two("della", density=0.9, epsilon=0.3), "models: model 1 has density 0.9 and epsilon 0.3, but density"),
        (two("breadcrumbs", density=0.9, gamma=-1), "models[1].gamma: must be from 0 to 1, got -1."),
        ({**two("sce", {"select_topk": 2}), "models": [{"model": "a"}]}, "select_topk: must be from 0 to 1, got 2."),
        (of_t(5), "parameters.t: must be from 0 to 1, got 5."),
        (of_t(True), "parameters.t: must be of type float"),
        (of_t([0.5, {"value": 1}]), "parameters.t: mixes values and filters"),
        (of_t([{"filter": "self_attn", "value": 0.5}]), "parameters.t: has only filters: end with {value: ...}"),
        (of_t([{"filter": 3, "value": 0.5}, {"value": 1}]), "parameters.t: a filter is {filter: part of a tensor"),
        (
            {"method": "karcher", "models": [{"model": "a"}, {"model": "c"}], "parameters": {"max_iter": 0}},
            "parameters.max_iter: must be at least 1, got 0.",
        ),
    ],
)
def test_settings_that_a_method_of_mergekit_is_not_defined_for_are_refused(block, expected, registry):
    assert expected in said(block, registry)


@pytest.mark.parametrize(
    ("method", "parameters", "remedy"),
    [
        ("della", {}, "or set normalize: false."),
        ("breadcrumbs", {"normalize": True}, "or set normalize: false."),
        ("multislerp", {}, "or set normalize_weights: false."),
        ("nuslerp", {}, "change them."),
    ],
)
def test_weights_that_sum_to_zero_are_refused_where_mergekit_divides_by_the_sum(method, parameters, remedy, registry):
    block = two(method, parameters)
    block["models"][1]["weight"] = -0.5
    text = said(block, registry)
    assert "the weights 0.5, -0.5 sum to zero, so they cannot be normalised" in text
    assert text.endswith(remedy)
