"""Make stock LLaMA-Factory know the ``slm:`` block; runs at every interpreter start.

Installed beside ``site-packages`` with a ``.pth`` line (and a ``.start`` file for Python 3.15 and
later, PEP 829). It imports nothing but ``sys`` and ``os``, which every interpreter has loaded, and
acts only when a submodule of ``llamafactory`` is first imported. ``SLM_PLUGIN_DISABLE=1`` switches
it off.

It never keeps LLaMA-Factory from being imported: if the package is gone, as after its checkout was
moved, it does nothing; if the package is there and cannot be loaded, one line on stderr says why.
"""

import os
import sys

PREFIX = "llamafactory."


class HostFinder:
    """Hands each freshly executed ``llamafactory`` module to ``slm_plugin.host.activation``."""

    busy = False
    failures = ()
    """Why the package could not be loaded; a run with a block is refused then."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """Return the stock spec with a loader that patches the module after executing it."""
        if cls.busy or not name.startswith(PREFIX):
            return None
        cls.busy = True
        try:
            from importlib.util import find_spec

            try:
                from slm_plugin.host.activation import patch_for
            except Exception as error:
                cls.report(error)
                return None
            patch = patch_for(name)
            spec = find_spec(name) if patch else None
        finally:
            cls.busy = False
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            try:
                patch(module)
            except Exception as error:
                cls.report(error)

        # on the instance: the loader keeps its type and the module its source and file
        spec.loader.exec_module = exec_module
        return spec

    @classmethod
    def report(cls, error):
        """Note why the package cannot be loaded, and say it once unless the package is gone."""
        is_gone = isinstance(error, ImportError) and error.name == "slm_plugin"
        if not is_gone and not cls.failures:
            text = " ".join(str(error).split())
            sys.stderr.write(f"slm_plugin is off: it cannot be loaded ({type(error).__name__}: {text}).\n")
        cls.failures += (str(error),)


def install():
    """Put the finder in front of ``sys.meta_path``, once."""
    if os.environ.get("SLM_PLUGIN_DISABLE", "").lower() in ("1", "true", "yes", "y"):
        return
    if HostFinder not in sys.meta_path:
        sys.meta_path.insert(0, HostFinder)
