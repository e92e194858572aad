"""Make stock LLaMA-Factory know the ``slm:`` block; runs at every interpreter start.

Installed beside ``site-packages`` with a ``.pth`` line (and a ``.start`` file for Python 3.15 and
later, PEP 829). It imports nothing but ``sys`` and ``os``, which every interpreter has loaded, and
acts only when a submodule of ``llamafactory`` is first imported. ``SLM_PLUGIN_DISABLE=1`` switches
it off.
"""

import os
import sys

PREFIX = "llamafactory."


class HostFinder:
    """Hands each freshly executed ``llamafactory`` module to ``slm_plugin.host.activation``."""

    busy = False

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Return the stock spec with a loader that patches the module after executing it."""
        if cls.busy or not name.startswith(PREFIX):
            return None
        cls.busy = True
        try:
            from importlib.util import find_spec

            from slm_plugin.host.activation import patch_for

            patch = patch_for(name)
            spec = find_spec(name) if patch else None
        finally:
            cls.busy = False
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            patch(module)

        # on the instance: the loader keeps its type and the module its source and file
        spec.loader.exec_module = exec_module
        return spec


def install():
    """Put the finder in front of ``sys.meta_path``, once."""
    if os.environ.get("SLM_PLUGIN_DISABLE", "").lower() in ("1", "true", "yes", "y"):
        return
    if HostFinder not in sys.meta_path:
        sys.meta_path.insert(0, HostFinder)
