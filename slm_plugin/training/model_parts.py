"""Where a parameter sits in a model: its layer, and which part of the model it belongs to.

Works on any transformers model, plain or wrapped by PEFT, by looking at modules rather than at names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Part = Literal["embeddings", "head", "attention", "feed_forward", "others"]


@dataclass(frozen=True)
class Depth:
    """Height of a parameter in its stack of layers.

    Attributes:
        layer: 1 for the lowest layer to ``count`` for the top one; 0 below all, ``count + 1`` above all.
        count: Layers in the stack.
    """

    layer: int
    count: int


def parts(model: nn.Module) -> dict[str, Part]:
    """Return the part of every parameter by name; each parameter belongs to exactly one.

    ``embeddings`` are the input embeddings and any other embedding table, ``head`` the output matrix where
    it is not tied to them, ``attention`` the projections of attention modules, ``feed_forward`` whatever
    else a layer computes with, ``others`` the rest: normalisation, front ends, towers.
    """
    tables, heads = _paths_of(model, "get_input_embeddings"), _paths_of(model, "get_output_embeddings")
    lists = stacks(model)
    found: dict[str, Part] = {}
    for name, _ in model.named_parameters():
        kinds = [type(module) for module in _along(model, name)]
        words = [kind.__name__.lower() for kind in kinds]
        if _below(name, tables) or any(issubclass(kind, nn.Embedding) for kind in kinds):
            found[name] = "embeddings"
        elif _below(name, heads):
            found[name] = "head"
        elif any("norm" in word for word in words):
            found[name] = "others"
        elif any("attention" in word for word in words):
            found[name] = "attention"
        elif _below(name, lists):
            found[name] = "feed_forward"
        else:
            found[name] = "others"
    return found


def depths(model: nn.Module) -> dict[str, Depth]:
    """Return the height of every parameter by name; empty where the model has no stack of layers.

    A parameter outside the stacks counts to the one that shares most of its path, and lies below or above
    it by the order in which the model holds them.
    """
    lists = stacks(model)
    if not lists:
        return {}
    counts = {path: len(model.get_submodule(path)) for path in lists}  # type: ignore[arg-type]  # ModuleLists
    names = [name for name, _ in model.named_parameters()]
    first = {path: next(i for i, name in enumerate(names) if _below(name, [path])) for path in lists}
    found = {}
    for position, name in enumerate(names):
        inside = next((path for path in lists if _below(name, [path])), None)
        if inside is not None:
            layer = int(name[len(inside) + 1 :].split(".")[0]) + 1
            found[name] = Depth(layer, counts[inside])
        else:
            nearest = max(lists, key=lambda path: _shared(path, name))
            found[name] = Depth(0 if position < first[nearest] else counts[nearest] + 1, counts[nearest])
    return found


def stacks(model: nn.Module) -> list[str]:
    """Return the paths of the layer lists: the decoder's, and the encoder's where the model has both.

    The list is the longest ``ModuleList`` that lies in no other, so that the experts of a layer and the
    layers of a smaller tower are not mistaken for it.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    base = _base(model)
    both = bool(getattr(getattr(base, "config", None), "is_encoder_decoder", False))
    roots = []
    for getter in ("get_encoder", "get_decoder") if both else ("get_decoder",):
        owner = getattr(base, getter, lambda: None)()
        if isinstance(owner, nn.Module) and id(owner) in paths:
            roots.append(paths[id(owner)])
    found = [path for root in dict.fromkeys(roots) if (path := _longest(model, root))]
    whole = _longest(model, "") if not found else None
    return found or ([whole] if whole else [])


def _longest(model: nn.Module, root: str) -> str | None:
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and any(True for _ in module.parameters())
    ]
    outermost = [path for path in lists if not _below(path, [other for other in lists if other != path])]
    inside = [path for path in outermost if not root or _below(path, [root])]
    return max(inside, key=lambda path: len(model.get_submodule(path)), default=None)  # type: ignore[arg-type]  # ModuleLists


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _paths_of(model: nn.Module, getter: str) -> list[str]:
    """Return under which paths a model holds the module that one of its getters gives."""
    try:
        module = getattr(_base(model), getter)()
    except (AttributeError, NotImplementedError):
        return []
    return [path for path, other in model.named_modules(remove_duplicate=False) if other is module]


def _along(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """Yield the modules on the way to a parameter."""
    module = model
    for piece in name.split(".")[:-1]:
        module = getattr(module, piece)
        yield module


def _below(name: str, paths: list[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)


def _shared(one: str, other: str) -> int:
    """Count the leading path pieces that two names share."""
    n = 0
    for first, second in zip(one.split("."), other.split("."), strict=False):
        if first != second:
            break
        n += 1
    return n
