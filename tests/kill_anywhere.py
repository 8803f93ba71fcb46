"""Kill builds, changes and exports at random moments: files stay whole, and nothing is left behind.

``python -m tests.kill_anywhere [--kills 300] [--seed 0] [--folder DIR]`` takes as long as the machine needs (some 20
minutes on 2 cores). Each command runs once to the end, to learn its time and its outputs. Then it runs many times from
the same start and is killed by SIGKILL at a random moment. After each kill, every output must be the older or the newer
one, byte for byte (folders: file for file). After the next run has locked the outputs and made its temporary folder,
nothing else may be there, nor in the folder of temporary files.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from builder.support.files import locked
from edge_runtime.temporary import FOLDER, remove_left_behind
from tests.tiny_models import PREPROCESSING, label_names, save_pictures, tiny_base, tiny_classifier, tiny_config

Content = dict[str, bytes]
TEMPORARY = "temporary"


@dataclass(frozen=True)
class Command:
    """``outputs``: the files and folders in the working folder that it writes, each as a whole."""

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]


def commands(inputs: Path) -> list[Command]:
    """All commands that write, on tiny models."""
    how = ("--preprocessing", PREPROCESSING, "--calibration-data", str(inputs / "pictures"), "--min-agreement", "0")
    heads = [part for name in ("animals", "garden") for part in ("--head", f"{name}={inputs / name}.keras")]
    served = ("--saved-model", "served", "--keras-output", "merged.keras")
    report = "main.report/report.json"
    return [
        Command(
            "build",
            ("build", *heads, *how, "--fast", "--precision", "int8", "--output", "main.tflite", *served),
            ("main.tflite", "served", "merged.keras", report, "main.report/index.html"),
        ),
        Command(
            "add-head",
            ("add-head", "main.tflite", f"dogs={inputs / 'dogs.keras'}", *how, "--fast"),
            ("main.tflite", report),
        ),
        Command("rename-head", ("rename-head", "main.tflite", "garden=yard"), ("main.tflite", report)),
        Command(
            "export task", ("export", "main.tflite", "--format", "task", "--output", "task.tflite"), ("task.tflite",)
        ),
        Command("export split", ("export", "main.tflite", "--format", "split", "--output", "split"), ("split",)),
    ]


def make_inputs(folder: Path) -> None:
    """Three classifiers on one base, with labels and pictures."""
    tiny_config(folder, {"animals": 3, "garden": 4})
    save_pictures(
        folder / "pictures", {"dogs": 24}
    )  # pictures of its own; without them it would be verified by its drift
    tiny_classifier(tiny_base(0), 2, seed=9).save(folder / "dogs.keras")
    for name, count in (("animals", 3), ("garden", 4), ("dogs", 2)):
        (folder / f"{name}.txt").write_text("".join(f"{label}\n" for label in label_names(name, count)))


def content(place: Path) -> Content | None:
    """The content of an output. Of the files of a report only whether they are whole, because they hold times."""
    if place.suffix in (".json", ".html") and place.exists():
        text = place.read_text("utf-8").rstrip()
        return {"whole": str(text.endswith(("}", "</html>"))).encode()}
    if place.is_dir():
        return {str(item.relative_to(place)): item.read_bytes() for item in place.rglob("*") if item.is_file()}
    return {"": place.read_bytes()} if place.exists() else None


def start(command: Command, folder: Path) -> subprocess.Popen[bytes]:
    """Start a command with its temporary files in a folder within the working folder."""
    (folder / TEMPORARY).mkdir(exist_ok=True)
    line = [sys.executable, "-m", "builder", *command.arguments]
    environment = {**os.environ, "TMPDIR": str(folder / TEMPORARY)}
    return subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def comparable(found: Content | None, place: str) -> object:
    """A content to compare: of a SavedModel the names of its files, of a Keras archive that it is a file.

    Both hold times and random numbers.
    """
    if found is None or place not in ("served", "merged.keras"):
        return found
    return sorted(found) if place == "served" else len(found)


def violations(command: Command, folder: Path, before: dict[str, object], after: dict[str, object]) -> list[str]:
    found = [
        f"{place} is neither the older nor the newer one"
        for place in command.outputs
        if comparable(content(folder / place), place) not in (before[place], after[place])
    ]
    for place in command.outputs:
        if (folder / place).parent.exists():
            with locked(folder / place):
                pass
    remove_left_behind(str(folder / TEMPORARY), FOLDER)
    left = [item for item in folder.rglob("*") if item.name.startswith(".")] + [*(folder / TEMPORARY).iterdir()]
    return found + [f"{item.relative_to(folder)} is left" for item in left]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="the folder to work in [default: a temporary one]")
    options = parser.parse_args()
    rng, wrong, counts = random.Random(options.seed), list[str](), Counter[str]()
    with tempfile.TemporaryDirectory(dir=options.folder) as top:
        inputs, initial, folder = (Path(top) / name for name in ("inputs", "initial", "work"))
        make_inputs(inputs)
        initial.mkdir()
        known = {}
        for command in commands(inputs):  # the other commands work on the output of build
            before = {place: comparable(content(initial / place), place) for place in command.outputs}
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(initial, folder)
            began = time.monotonic()
            if start(command, folder).wait():
                sys.exit(f"{command.name} fails without a kill")
            after = {place: comparable(content(folder / place), place) for place in command.outputs}
            known[command.name] = (command, before, after, time.monotonic() - began)
            if command.name == "build":
                shutil.rmtree(initial)
                shutil.copytree(folder, initial)
                known[command.name] = (command, {**after}, after, time.monotonic() - began)
        killed = 0
        while killed < options.kills:
            command, before, after, seconds = known[rng.choice(list(known))]
            shutil.rmtree(folder)
            shutil.copytree(initial, folder)
            process = start(command, folder)
            try:
                process.wait(rng.uniform(0, 1.05 * seconds))
            except subprocess.TimeoutExpired:
                process.kill()
            hit = process.wait() < 0
            killed += hit
            counts[f"{command.name}: {'killed' if hit else 'done before'}"] += 1
            wrong += [f"kill {killed}, {command.name}: {what}" for what in violations(command, folder, before, after)]
            if hit and killed % 25 == 0:
                print(f"{killed} of {options.kills} killed, {len(wrong)} wrong", flush=True)
    for name, count in sorted(counts.items()):
        print(f"{count:4d} {name}")
    print("\n".join(wrong) or "every output was whole, and nothing was left behind")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
