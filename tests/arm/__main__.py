"""Run the runtime's tests, and the demo file on real pictures, on every processor: ``make test-arm``.

    python -m tests.arm build/arm --demo build/demo.tflite            # all of it
    python -m tests.arm build/arm --processor cortex-a53              # one processor; may be repeated

The exit code is 1 if a test fails or an answer differs too much from this machine's, and 2 if something is missing here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.arm.machine import A7, A53, A72, A76, MissingError, Processor, fetch, python_for

EVERYTHING = ["tests/device"]
ANSWERS = ["tests/device/test_answers.py", "tests/device/test_joint.py"]  # depend on the processor's kernels
RUNS = ((A53, EVERYTHING), (A72, ANSWERS), (A76, ANSWERS), (A7, EVERYTHING))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder of the emulated systems")
    parser.add_argument("--demo", type=Path, help="also run this polyhead file, which takes the demo's input")
    parser.add_argument("--processor", action="append", choices=[processor.name for processor, _ in RUNS])
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [run for run in RUNS if options.processor is None or run[0].name in options.processor]
    try:
        for architecture in dict.fromkeys(processor.architecture for processor, _ in chosen):
            fetch(architecture, folder)
    except MissingError as error:
        print(f"make test-arm: {error}", file=sys.stderr)
        return 2
    answers = folder / "demo.npz" if options.demo else None
    if answers is not None:
        subprocess.run([sys.executable, "-m", "tests.arm.demo", "write", str(options.demo), str(answers)], check=True)
    failed = [processor.name for processor, tests in chosen if not passes(processor, tests, folder, answers)]
    if failed:
        print(f"tests failed, or answers differ too much: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def passes(processor: Processor, tests: list[str], folder: Path, answers: Path | None) -> bool:
    begin = time.monotonic()
    python = str(python_for(processor, folder))
    print(f"{processor.name}, {processor.architecture.name}", flush=True)
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", *tests]
    good = subprocess.run(command, check=False).returncode == 0
    for name, version, _ in processor.architecture.wheels if answers else ():
        print(f"demo, {name} {version}", flush=True)
        command = [python, "-m", "tests.arm.demo", "compare", str(answers), name.replace("-", "_")]
        good &= subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0
    print(f"{processor.name}: {time.monotonic() - begin:.0f} s", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
