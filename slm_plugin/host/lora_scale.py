"""``slm.lora_scale``: the adapters that the host loads count by a factor.

The host gets folders of links in place of the adapters, only while it loads them: cards, logs of the run
and further stages keep the names of the originals.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from slm_plugin.adapters.check import require_loadable, require_same_fingerprint, require_same_units
from slm_plugin.adapters.discount import write_discounted
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import CONFIG_FILE, WEIGHTS_FILE, LoraAdapter
from slm_plugin.errors import Problem, SlmError, WeightsError, suggest
from slm_plugin.host import runtime
from slm_plugin.training.vocabulary_matrices import vocabulary_modules
from slm_plugin.weights.checkpoint import Checkpoint, WeightSource


def put_in_force(active: runtime.Active, is_training: bool, where: str) -> list[Problem]:
    """Resolve ``lora_scale`` into one factor for each adapter folder, and check the adapters.

    Returns:
        What is wrong; empty where all is well.
    """
    problems = _adapter_problems(active, where)
    spot, model_args = f"{where}.lora_scale", active.model_args
    wanted = active.config.block.lora_scale
    adapters = [str(path) for path in model_args.adapter_name_or_path or []]
    if wanted is None:
        return problems
    if active.config.block.merge is not None and wanted != 1:
        text = "does not act on a merge: use the weights of its models, or export each with lora_scale first."
        return [*problems, Problem(spot, text)]
    if isinstance(wanted, list):
        factor, found = _of_sweep(wanted, model_args, is_training, spot)
        problems += found
        if found:
            return problems
        wanted = factor
    factors, found = _by_adapter(wanted, adapters, spot)
    problems += found
    changed = [path for path, factor in factors.items() if factor != 1]
    problems += [
        Problem(spot, f"needs a local adapter folder, but {path} is not one; download it first.")
        for path in changed
        if not Path(path).is_dir()
    ]
    backend = str(getattr(model_args.infer_backend, "value", model_args.infer_backend))
    if changed and not is_training and model_args.export_dir is None and backend != "huggingface":
        text = f"acts with infer_backend: huggingface, got {backend}; export with lora_scale and load the result."
        problems.append(Problem(spot, text))
    active.factors = factors
    active.facts["lora_scale"] = {path: factors[path] for path in adapters if path in factors}
    active.facts["scaled_modules"] = active.config.block.scaled_modules
    return problems


@contextlib.contextmanager
def discounted(model: Any, model_args: Any, finetuning_args: Any, is_trainable: bool) -> Iterator[None]:
    """Check the adapters that the host is about to load, and let it load discounted ones where asked to.

    To be entered where warnings are caught.

    Raises:
        WeightsError: An adapter is damaged, holds values that are not finite, or belongs to another base, or
            the temporary folder has no room for its discounted copy.
    """
    active = runtime.active()
    adapters = [str(path) for path in model_args.adapter_name_or_path or []]
    if active is None or model is None or not adapters:
        yield
        return
    # the host merges adapters one by one, and PEFT warns of the one before, which is no longer there
    warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
    subfolder = model_args.adapter_folder or ""
    shapes = _shapes(model)
    matrices = [f"{path}.weight" for path in vocabulary_modules(model)]
    for path in adapters:
        if Path(path).is_dir():
            require_loadable(Path(path) / subfolder, shapes)
            require_same_units(Path(path) / subfolder, active.unit_record(), bool(active.new_tokens), matrices)
    factors = [active.factors.get(path, 1.0) for path in adapters]
    if all(factor == 1 for factor in factors):
        yield
        return
    goes_on = is_trainable and not finetuning_args.create_new_adapter
    stated = model_args.adapter_name_or_path
    with tempfile.TemporaryDirectory(prefix="slm_lora_scale_") as temporary:
        interpolate = active.config.block.scaled_modules == "interpolate"
        stack = _Stack(str(model_args.model_name_or_path), interpolate, active.unit_record())
        paths = []
        for position, (path, factor) in enumerate(zip(adapters, factors, strict=True)):
            target = Path(temporary) / f"{position}_{Path(path).name}"
            keeps = goes_on and position == len(adapters) - 1
            try:
                paths.append(stack.add(Path(path), subfolder, target, factor, keep_alpha=keeps))
            except (OSError, SafetensorError) as error:
                raise WeightsError(f"the discounted copy of {path} cannot be written to {target}: {error}.") from None
            runtime.say(f"lora_scale {factor:g}: {path}")
        model_args.adapter_name_or_path = paths
        try:
            yield
        finally:
            model_args.adapter_name_or_path = stated


def _shapes(model: Any) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of each weight: the whole of what ZeRO-3 has partitioned, None for what is quantised."""
    shapes: dict[str, tuple[int, ...] | None] = {f"{name}.weight": None for name, _ in model.named_modules()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.is_floating_point():
            shapes[name] = tuple(getattr(parameter, "ds_shape", parameter.shape))
    return shapes


class _Stack:
    """Adapters one on top of the other, each discounted over the weights below it.

    Args:
        model: The base: a folder or a name on the hub that the host has loaded already.
        interpolate: Whether weights trained in full move too.
        units: The units of the tokenizer, for adapters whose card has none.
    """

    def __init__(self, model: str, interpolate: bool, units: Mapping[str, Any] | None) -> None:
        self.model = model
        self.interpolate = interpolate
        self.units = units
        self._below: list[tuple[LoraAdapter, float]] = []

    def add(self, path: Path, subfolder: str, target: Path, factor: float, keep_alpha: bool) -> str:
        """Write the discounted copy of an adapter; return what the host loads in place of its folder."""
        if factor == 1 and not subfolder:
            self._below.append((LoraAdapter(path), 1.0))
            return str(path)
        adapter = LoraAdapter(path / subfolder)
        write_discounted(adapter, target / subfolder, factor, self._weights, self.interpolate, keep_alpha, self.units)
        self._below.append((adapter, factor))
        return str(target)

    def _weights(self) -> WeightSource:
        source: WeightSource = Checkpoint(_local(self.model))
        for adapter, factor in self._below:
            source = FoldedCheckpoint(source, adapter, factor, self.interpolate, self.units)
        return source


def _local(model: str) -> Path:
    """Return the folder of a model, that of the hub's cache included."""
    if Path(model).is_dir():
        return Path(model)
    from transformers.utils.hub import cached_file

    found = cached_file(model, "config.json")
    return Path(model) if found is None else Path(found).parent


def _of_sweep(wanted: list[float], model_args: Any, is_training: bool, spot: str) -> tuple[float, list[Problem]]:
    """Return the factor of the export that is under way, and send it to a folder of its own."""
    position = runtime.sweep_position()
    if is_training or position is None:
        text = f"the list {wanted} is a sweep, for llamafactory-cli export only; give one factor here."
        return 1.0, [Problem(spot, text)]
    problems = [] if wanted else [Problem(spot, "the list of factors is empty.")]
    problems += [Problem(f"{spot}[{i}]", text) for i, text in enumerate(map(_wrong, wanted)) if text]
    twice = sorted({factor for factor in wanted if wanted.count(factor) > 1})
    problems += [Problem(spot, f"lists {factor} more than once.") for factor in twice]
    if problems:
        return 1.0, problems
    factor = wanted[position]
    model_args.export_dir = str(Path(model_args.export_dir) / f"lora_scale_{factor}")
    return factor, []


def _by_adapter(
    wanted: float | dict[str, float], adapters: list[str], spot: str
) -> tuple[dict[str, float], list[Problem]]:
    """Return the factor of each adapter."""
    if not isinstance(wanted, dict):
        text = _wrong(wanted)
        if not text and wanted != 1 and not adapters:
            text = f"{wanted} has nothing to act on: set adapter_name_or_path."
        return dict.fromkeys(adapters, wanted), [Problem(spot, text)] if text else []
    factors, problems = dict.fromkeys(adapters, 1.0), []
    for name, factor in wanted.items():
        same = [path for path in adapters if path == name or Path(path).resolve() == Path(name).resolve()]
        text = _wrong(factor)
        if not same:
            text = f"is not in adapter_name_or_path. {suggest(name, adapters, 'Adapters')}"
        if text:
            problems.append(Problem(f"{spot}.{name}", text))
        factors |= dict.fromkeys(same, factor)
    return factors, problems


def _wrong(factor: float) -> str:
    return "" if math.isfinite(factor) and factor >= 0 else f"must be a finite number of 0 or more, got {factor}."


def _adapter_problems(active: runtime.Active, where: str) -> list[Problem]:
    """Tell of adapters that are incomplete or were trained on another base, before anything is loaded."""
    problems, base = [], Path(str(active.model_args.model_name_or_path))
    for path in active.model_args.adapter_name_or_path or []:
        folder = Path(path) / (active.model_args.adapter_folder or "")
        spot = f"{where.removesuffix('slm').removesuffix(': ') or 'arguments'}: adapter_name_or_path"
        if not folder.is_dir():
            # a name on the hub is "owner/name" at most; beside folders that are here, it is a misspelt one
            beside = folder.parent if folder.parent != Path() else None
            if beside is not None and (beside.is_dir() or len(folder.parts) > 2):
                siblings = [str(other) for other in beside.iterdir() if other.is_dir()] if beside.is_dir() else []
                problems.append(Problem(spot, f"{path} is not a folder. {suggest(path, siblings, 'Folders')}"))
            continue
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        if WEIGHTS_FILE in missing and (folder / "adapter_model.bin").is_file():
            missing.remove(WEIGHTS_FILE)
        if missing:
            problems.append(Problem(spot, f"the adapter {path} lacks {' and '.join(missing)}."))
            continue
        try:
            require_same_fingerprint(folder, base)
        except SlmError as error:
            problems.append(Problem(spot, str(error)))
    return problems
