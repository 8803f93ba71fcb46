"""The commands ``builder`` and ``polyhead``. Interrupted or terminated, they end without a traceback, even while
importing.
"""

import importlib
import signal
import sys

from builder.support.lean_keras import spare_keras


def main() -> None:
    """Run ``builder``."""
    _run("builder.commands.cli")


def polyhead() -> None:
    """Run ``polyhead``, which has the commands of ``edge-runtime`` too."""
    _run("builder.commands.front")


def _run(module: str) -> None:
    """Run a command. SIGTERM acts like Ctrl-C: drafts are removed, existing outputs stay."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    spare_keras()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are not UTF-8
    try:
        importlib.import_module(module).main()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


if __name__ == "__main__":
    main()
