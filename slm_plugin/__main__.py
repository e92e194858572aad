"""``python -m slm_plugin`` is the ``slm`` command."""

from slm_plugin.cli import main

if __name__ == "__main__":
    main()
