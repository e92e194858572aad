"""A LoRA adapter on disk: which weights of its base it changes, and by what.

LoRA makes ``W0 + scale * B A`` of a weight, with ``scale = alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA.

Source: arXiv 2106.09685 (LoRA), section 4.1; arXiv 2312.03732 (rsLoRA).

Shapes: ``O`` outputs and ``I`` inputs of a matrix, ``R`` the rank, ``V`` rows of an embedding.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import regex
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from slm_plugin.errors import WeightsError, suggest

if TYPE_CHECKING:
    import torch

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
_PATTERN_S = 1.0
Kind = Literal["up", "down", "magnitude", "rows", "replaced", "copy"]
_LOW_RANK = re.compile(r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B)")
_MAGNITUDE = re.compile(r"(.+)\.lora_magnitude_vector(\.weight)?")
_ROWS = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta")
# copies of base matrices that PEFT may write and never reads back as trained values
_COPIES = (".original_module.", ".modules_to_save.", ".trainable_tokens_original")
_BASE_LAYER = re.compile(r"\.(token_adapter\.)?base_layer(?=\.)")
_WRAPPING = ("model", "language_model")
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_NOT_MERGED = ("lora_bias", "target_parameters", "layer_replication", "alora_invocation_tokens", "use_qalora")


def _pattern(text: str) -> str:
    try:
        regex.compile(text)
    except regex.error as error:
        raise ValueError(f"{text!r} is no pattern: {error}") from None
    return text


_Pattern = Annotated[str, Field(max_length=4096), AfterValidator(_pattern)]


class _Config(BaseModel):
    """The keys of ``adapter_config.json`` that are read here; the file may come from anybody.

    Keys that are not listed are PEFT's own and are left alone.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    peft_type: str | None = None
    r: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    lora_alpha: float | None = None
    rank_pattern: dict[_Pattern, int] | None = None
    alpha_pattern: dict[_Pattern, float] | None = None
    target_modules: str | list[str] | None = None
    modules_to_save: list[str] | None = None
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    init_lora_weights: bool | str | None = None
    bias: str | None = None
    base_model_name_or_path: str | None = None


@dataclass(frozen=True)
class LowRank:
    """What LoRA adds to a weight: ``scale * up_OR @ down_RI``.

    Attributes:
        up_OR: Float32; for a convolution its other dimensions are flattened into ``I`` of ``down_RI``.
        down_RI: Float32.
        scale: ``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA, with the patterns of the configuration.
    """

    up_OR: torch.Tensor
    down_RI: torch.Tensor
    scale: float

    def delta(self, factor: float = 1.0) -> torch.Tensor:
        """Return ``factor * scale * up @ down``, shape ``(O, I)``, in float32."""
        return (self.up_OR @ self.down_RI) * (self.scale * factor)


@dataclass(frozen=True)
class Decomposed:
    """What DoRA makes of a weight: ``magnitude * (W + delta) / norm(W + delta)``.

    Attributes:
        low_rank: The update of the direction.
        magnitude: One number for each index along ``axis``, float32.
        axis: 0 where each row has a magnitude, 1 where each column has (embeddings and transposed layers).
    """

    low_rank: LowRank
    magnitude: torch.Tensor
    axis: int


class LoraAdapter:
    """A folder with ``adapter_config.json`` and ``adapter_model.safetensors``, read one tensor at a time.

    All names are those of the base's weights, such as ``model.layers.0.self_attn.q_proj.weight``.

    Args:
        folder: A folder that PEFT wrote.

    Raises:
        WeightsError: A file is missing or damaged, it is not LoRA, or it is of a form that cannot be
            added to the weights of its base.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = load_config(folder)
        reason = unsupported(self.config)
        if reason:
            raise WeightsError(f"{folder / CONFIG_FILE}: {reason}.")
        self.path = folder / WEIGHTS_FILE
        self._shapes = self._read_header()
        self._stated: dict[str, str] = {}
        self._sort({key: self._classify(key) for key in self._shapes})
        halves = sorted(set(self._up) ^ set(self._down))
        if halves:
            raise WeightsError(f"{self.path} has only one of the two matrices of {halves[0]!r}.")

    def aligned(self, names: Collection[str]) -> LoraAdapter:
        """Return the adapter with the names that the files of its base have.

        Some models, those of several modalities first of all, are saved under other names than their modules
        have: ``language_model.model.layers.0`` for ``model.language_model.layers.0``. A name that is not among
        ``names`` becomes the only one of them that differs in such wrapping parts alone; others stay as they are.
        """
        held = set(names)
        lacking = self._trained() - held
        if not lacking:
            return self
        by_core: dict[str, list[str]] = {}
        for name in held:
            by_core.setdefault(_core(name), []).append(name)
        found = {name: by_core.get(_core(name), []) for name in lacking}
        renamed = {name: same[0] for name, same in found.items() if len(same) == 1 and same[0] not in self._trained()}
        twin = copy.copy(self)
        twin._stated = {new: self._stated.get(old, old) for old, new in renamed.items()} | self._stated
        twin._sort({key: (kind, renamed.get(name, name)) for key, (kind, name) in self._kinds.items()})
        return twin

    @property
    def base_path(self) -> str:
        """The base that the configuration names: a folder, or a name on a hub."""
        return str(self.config.get("base_model_name_or_path") or "")

    @property
    def is_decomposed(self) -> bool:
        """Whether it is DoRA."""
        return bool(self._magnitudes)

    def modules(self) -> list[str]:
        """Return the names of the weights with a low-rank update, DoRA's included, sorted."""
        return sorted(self._up)

    def replaced(self) -> list[str]:
        """Return the names of the weights that are trained in full, sorted."""
        return sorted(self._replaced)

    def row_names(self) -> list[str]:
        """Return the names of the weights of which single rows are trained, sorted."""
        return sorted(self._rows)

    def low_rank(self, name: str) -> LowRank | None:
        """Return the update of a weight; None without one, and for DoRA (see :meth:`decomposed`)."""
        return None if name in self._magnitudes else self._pair(name)

    def decomposed(self, name: str) -> Decomposed | None:
        """Return what DoRA makes of a weight; None where it has no magnitudes."""
        pair = self._pair(name) if name in self._magnitudes else None
        if pair is None:
            return None
        magnitude = self.read(self._magnitudes[name]).float().flatten()
        return Decomposed(pair, magnitude, axis=1 if self._is_transposed(name) else 0)

    def replacement(self, name: str) -> torch.Tensor:
        """Return a weight as trained in full, of the shape and type that it has in the file.

        Raises:
            WeightsError: It is not trained in full, or holds values that are not finite.
        """
        if name not in self._replaced:
            raise WeightsError(f"{self.folder} does not train {name!r} in full. {suggest(name, self._replaced)}")
        return self.read(self._replaced[name])

    def replacement_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight trained in full without reading it."""
        return self._shapes[self._replaced[name]]

    def update_shape(self, name: str) -> tuple[int, int]:
        """Return ``(O, I)`` of a low-rank update without reading it."""
        up, down = self._shapes[self._up[name]], self._shapes[self._down[name]]
        shape = (up[0], math.prod(down[1:]))
        return shape[::-1] if self._is_transposed(name) else shape

    def rank(self, name: str) -> int:
        """Return the rank of a low-rank update."""
        return self._shapes[self._down[name]][0]

    def rows(self, name: str) -> tuple[list[int], torch.Tensor] | None:
        """Return the ids and values ``(rows, width)`` of the rows trained of a weight; None without any."""
        if name not in self._rows:
            return None
        ids = _row_ids(self.config.get("trainable_token_indices"), self._module(name))
        values = self.read(self._rows[name])
        if ids is None or len(ids) != len(values):
            found = "no" if ids is None else str(len(ids))
            raise WeightsError(
                f"{self.folder / CONFIG_FILE} lists {found} trainable_token_indices for {name!r}, but {WEIGHTS_FILE}"
                f" holds {len(values)} rows."
            )
        return ids, values

    def scale(self, name: str) -> float:
        """Return ``alpha / r`` of a weight, by PEFT's patterns; ``alpha / sqrt(r)`` for rsLoRA."""
        module = self._module(name)
        rank = _by_pattern(self.config.get("rank_pattern"), module, self.config.get("r", 8))
        alpha = _by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", 8))
        if not isinstance(rank, int | float) or rank <= 0 or not isinstance(alpha, int | float):
            raise WeightsError(f"{self.folder / CONFIG_FILE}: r must be above 0 and lora_alpha a number.")
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    def kinds(self) -> dict[str, tuple[Kind, str]]:
        """Return what each tensor of the file is, by its name there, and the weight that it changes."""
        return dict(self._kinds)

    def read(self, key: str) -> torch.Tensor:
        """Read a tensor by its name in the file, of the shape and type that it has there.

        Raises:
            WeightsError: The file cannot be read, or the tensor holds values that are not finite.
        """
        # here, because reading a configuration must not load torch, which takes a second
        import torch

        try:
            with safe_open(self.path, "pt") as file:
                found: torch.Tensor = file.get_tensor(key)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{self.path} is damaged or cannot be read: {error}.") from None
        if not torch.isfinite(found).all():
            raise WeightsError(f"{self.path}: {key!r} holds values that are not finite; its training diverged.")
        return found

    def _pair(self, name: str) -> LowRank | None:
        if name not in self._up:
            return None
        down = self.read(self._down[name]).float().flatten(1)
        up = self.read(self._up[name]).float().flatten(1)
        scale = self.scale(name)
        return LowRank(down.T, up.T, scale) if self._is_transposed(name) else LowRank(up, down, scale)

    def _sort(self, kinds: dict[str, tuple[Kind, str]]) -> None:
        self._kinds = kinds
        self._up, self._down = self._of_kind("up"), self._of_kind("down")
        self._magnitudes, self._rows = self._of_kind("magnitude"), self._of_kind("rows")
        self._replaced = self._of_kind("replaced")

    def _trained(self) -> set[str]:
        return {name for kind, name in self._kinds.values() if kind != "copy"}

    def _of_kind(self, wanted: Kind) -> dict[str, str]:
        """Return the name in the file by the weight that it changes."""
        return {name: key for key, (kind, name) in self._kinds.items() if kind == wanted}

    def _module(self, name: str) -> str:
        """Return the module of a weight as the configuration's patterns know it."""
        return self._stated.get(name, name).removesuffix(".weight")

    def _is_transposed(self, name: str) -> bool:
        return bool(self.config.get("fan_in_fan_out")) or "lora_embedding" in self._down[name]

    def _classify(self, key: str) -> tuple[Kind, str]:
        name = key.removeprefix(PREFIX)
        if match := _LOW_RANK.fullmatch(name):
            return ("down" if "_A" in match[2] else "up"), f"{match[1]}.weight"
        if match := _MAGNITUDE.fullmatch(name):
            return "magnitude", f"{match[1]}.weight"
        if match := _ROWS.fullmatch(name):
            return "rows", f"{match[1]}.weight"
        if "lora_" in name:
            raise WeightsError(f"{self.path}: {key!r} is of a kind of LoRA that cannot be added to a weight.")
        if any(part in name for part in _COPIES):
            return "copy", name
        return "replaced", _BASE_LAYER.sub("", name)

    def _read_header(self) -> dict[str, tuple[int, ...]]:
        if not self.path.is_file():
            raise WeightsError(f"{self.folder} has no {WEIGHTS_FILE}; save the adapter as safetensors.")
        try:
            with safe_open(self.path, "pt") as file:
                return {key: tuple(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{self.path} is damaged or cannot be read: {error}.") from None


def load_config(folder: Path) -> dict[str, Any]:
    """Return ``adapter_config.json`` of a folder.

    Raises:
        WeightsError: It is missing or damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        where = "has no" if folder.is_dir() else "is not a folder with an"
        raise WeightsError(f"{folder} {where} {CONFIG_FILE}; a LoRA adapter as PEFT saves it is needed.")
    try:
        raw = path.read_bytes()
        config: dict[str, Any] = json.loads(raw.decode("utf-8"))
        _Config.model_validate(config)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, detail["loc"][:2])) or "its content"
        raise WeightsError(f"{path}: {key} is not what PEFT writes ({detail['msg']}).") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from None
    return config


def changes_base(init: Any) -> bool:
    """Tell whether an ``init_lora_weights`` of PEFT changes the weights of the base, not only those of the adapter."""
    return isinstance(init, str) and init.lower().startswith(_CHANGES_BASE)


def unsupported(config: Mapping[str, Any]) -> str:
    """Say why an adapter of this configuration cannot be added to the weights of its base; empty where it can."""
    if config.get("peft_type") != "LORA":
        return f"peft_type is {config.get('peft_type')!r}; only LORA is accepted"
    start = config.get("init_lora_weights")
    if changes_base(start):
        return f"init_lora_weights {start!r} changed the base itself; convert the adapter to plain LoRA"
    used = [key for key in _NOT_MERGED if config.get(key)]
    return f"{', '.join(used)} cannot be folded into the weights of a base" if used else ""


def _core(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPING)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a module's name, as PEFT does."""
    for pattern, value in (patterns or {}).items():
        try:
            # an adapter may come from anybody, and some patterns take exponential time
            if regex.match(rf"(.*\.)?({pattern})$", module, timeout=_PATTERN_S):
                return value
        except TimeoutError:
            raise WeightsError(f"{CONFIG_FILE}: the pattern {pattern!r} takes too long to match.") from None
    return default


def _row_ids(indices: Any, module: str) -> list[int] | None:
    if isinstance(indices, list):
        return indices
    for name, ids in (indices or {}).items():
        if module == name or module.endswith(f".{name}"):
            return list(ids)
    return None
