"""The commands ``builder`` and ``polyhead``. Interrupted or terminated, they end without a traceback, even while
importing.
"""

import importlib
import importlib.abc
import signal
import sys
from typing import Any


class NotForKeras(importlib.abc.MetaPathFinder):
    """Keras, while it is imported, does not find the libraries of its plots and wrappers, which no command uses: they
    take a third of its time. Only in a process of our own, because Keras never looks for them again.
    """

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name in ("matplotlib", "sklearn"):
            spec = getattr(sys.modules.get("keras"), "__spec__", None)
            if getattr(spec, "_initializing", False):  # as importlib marks a module that is being imported
                raise ModuleNotFoundError(f"{name} is not for Keras", name=name)


def main() -> None:
    """Run ``builder``."""
    _run("builder.commands.cli")


def polyhead() -> None:
    """Run ``polyhead``, which has the commands of ``edge-runtime`` too."""
    _run("builder.commands.front")


def _run(module: str) -> None:
    """Run a command. SIGTERM acts like Ctrl-C: drafts are removed, existing outputs stay."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.meta_path.insert(0, NotForKeras())
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are not UTF-8
    try:
        importlib.import_module(module).main()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


if __name__ == "__main__":
    main()
