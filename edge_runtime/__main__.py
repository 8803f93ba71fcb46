"""The command ``edge-runtime``. An interrupt ends it with a short message, also during its imports."""

import faulthandler
import sys


def main() -> None:
    """Run the command line."""
    if sys.stderr is not None:  # as under pythonw
        faulthandler.enable()  # where native code ends the process, it leaves a word
    try:
        from edge_runtime.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit("Aborted!")


if __name__ == "__main__":
    main()
