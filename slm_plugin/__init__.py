"""Turn a text LLM into a spoken language model inside LLaMA-Factory, and keep what it knew."""

from slm_plugin.hookspecs import hookimpl

__version__ = "0.2.0.dev0"
__all__ = ["__version__", "hookimpl"]
