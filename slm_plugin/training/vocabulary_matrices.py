"""The matrices with one row for each token, input embeddings and head, and which of their rows train.

Works on any transformers model, plain or wrapped by PEFT. Whether the two are one matrix is read from the weights,
because a configuration may say otherwise.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils import ModulesToSaveWrapper
from peft.utils.other import TrainableTokensWrapper


def vocabulary_modules(model: Any) -> dict[str, Any]:
    """Return input embeddings and head, as far as a model has them, by their paths in the model that PEFT wraps."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: dict[str, Any] = {}
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        try:
            module = getattr(base, getter)()
        except (AttributeError, NotImplementedError):
            continue
        paths = [path for path, other in base.named_modules() if module is not None and other is module]
        found |= dict.fromkeys(paths[:1], module)
    return found


def own_matrices(model: Any) -> dict[str, Any]:
    """Return the modules with a matrix of their own by path: a head tied to the input embeddings has none."""
    found = vocabulary_modules(model)
    return dict(list(found.items())[:1]) if is_tied(model) else found


def is_tied(model: Any) -> bool:
    """Tell whether input embeddings and head are one matrix."""
    weights = [_computing(module).weight for module in vocabulary_modules(model).values()]
    return len(weights) == 2 and weights[0] is weights[1]


def height(module: Any) -> int:
    """Return the rows of input embeddings or head, all of them if ZeRO-3 has partitioned the matrix."""
    weight = _computing(module).weight
    return int(getattr(weight, "ds_shape", weight.shape)[0])


def trained_rows(module: Any) -> Set[int]:
    """Return which rows of input embeddings or head train in full; empty if none do.

    A low-rank update alone does not count, because it cannot move one row without the others.

    Args:
        module: The module, plain or as PEFT wrapped it.
    """
    inner = module.token_adapter if isinstance(module, TrainableTokensWrapper) else module
    if isinstance(inner, TrainableTokensLayer):
        names = [name for name in inner.active_adapters if inner.trainable_tokens_delta[name].requires_grad]
        return {row for name in names for row in inner.token_indices[name]}
    return set(range(height(module))) if _computing(module).weight.requires_grad else set()


def _computing(module: Any) -> Any:
    """Return the module whose weight computes: the trained copy in PEFT's wrapper, or what a wrapper is around."""
    if isinstance(module, ModulesToSaveWrapper):
        names = [name for name in module.active_adapters if name in module.modules_to_save]
        return module.modules_to_save[names[0]] if names else _computing(module.original_module)
    if isinstance(module, TrainableTokensWrapper):
        return _computing(module.token_adapter)
    return _computing(module.base_layer) if hasattr(module, "base_layer") else module
