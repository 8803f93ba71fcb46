"""The command ``builder``. Interrupted or terminated it ends in a word, also while it is still importing."""

import signal
import sys


def main() -> None:
    """Run the command line; SIGTERM ends it as Ctrl-C does: drafts are removed, what stood there stays."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # names that are no UTF-8
    try:
        from builder.commands.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


if __name__ == "__main__":
    main()
