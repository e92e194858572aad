"""Look at a model in the middle of its training and leave no trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

GENERATION = "generation_config"


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Put back what scoring a model changes: modes of modules, how they generate, and every random generator.

    The generators are those of Python, NumPy, torch, and of the devices that hold the model. Weights, gradients
    and optimizers are not touched by looking at a model and are not copied.

    Args:
        model: The model; each of its modules goes back to the mode it was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    # PEFT's wrapper and the model inside each hold one, and hand it to the other where they generate
    generation = [(module, vars(module).get(GENERATION)) for module, _ in modes]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = {parameter.device for parameter in model.parameters()} - {torch.device("cpu"), torch.device("meta")}
    states = {device: torch.get_device_module(device).get_rng_state(device) for device in devices}
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, config in generation:
            if config is not None:
                setattr(module, GENERATION, config)
            else:
                vars(module).pop(GENERATION, None)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for device, state in states.items():
            torch.get_device_module(device).set_rng_state(state, device)
