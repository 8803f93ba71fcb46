"""Measure a file of two hundred text heads against its targets: ``python -m benchmarks.text``.

The classifiers are those of ``examples/text_heads.py``: 200 ``.keras`` files on one base, which stay in the output folder
for the next run. One file of all heads and one of the first head are built, each in a process of its own. Both run in
turns: one head of the many beside the same head alone, and all heads in one call of ``serving_default`` beside the bare
backbone. Writes ``text.json`` and ``text.md``.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.bench import ROOT, machine, run_child
from benchmarks.measure import take_turns
from builder.support.progress import Stages
from builder.support.quiet import terminal
from edge_runtime import MultiHeadClassifier
from edge_runtime.interpreter import open_interpreter
from edge_runtime.metadata import BACKBONE, END_TO_END, Metadata

CONFIG, GLOSSES = "text_heads.toml", "held_out"
KIB = 1024
TARGETS = {"bytes a head beside its weights": 2 * KIB, "one of many": 1.05, "all in one call": 1.5, "build seconds": 60.0}
AGREEMENT = {"mean": 0.98, "worst": 0.93}
_SEED, _TEXTS = 5, 64


def make_files(folder: Path, tasks: int) -> dict[str, Any]:
    """Train the demo's files. This takes some minutes."""
    spec = importlib.util.spec_from_file_location("text_heads", ROOT / "examples" / "text_heads.py")
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = demo
    spec.loader.exec_module(demo)
    demo.prepare(folder, tasks)
    return {}


def build_file(folder: Path, heads: int) -> dict[str, Any]:
    """Build one file of the first ``heads`` classifiers, verification included: seconds by stage, bytes."""
    start = time.perf_counter()
    from builder import BuildConfig, build

    config = BuildConfig.from_toml(folder / CONFIG)
    output = _file(folder, heads)
    result = build(replace(config, heads=config.heads[:heads], output=output, report=folder / f"report_{heads}"))
    return {
        "seconds": time.perf_counter() - start,
        "stages": dict(result.report.seconds),
        "bytes": output.stat().st_size,
        "own_weights": [_own_weights(result.metadata, len(head.labels)) for head in result.metadata.heads],
        "agreement": [quality.agreement for quality in result.quality.heads],
    }


def time_answers(folder: Path, heads: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of each task in every round, on one thread. The first two tasks include tokenizing the text."""
    names = {count: _file(folder, count) for count in (1, heads)}
    texts = [line for path in sorted((folder / GLOSSES).glob("*/*.txt")) for line in path.read_bytes().split(b"\n")]
    chosen = random.Random(_SEED).sample(sorted({text for text in texts if text}), _TEXTS)
    opened = {count: MultiHeadClassifier(path, num_threads=1) for count, path in names.items()}
    tasks: dict[str, Callable[[Any], object]] = {
        f"one of {count}": partial(classifier.classify_text, heads=[0]) for count, classifier in opened.items()
    }
    _, interpreter = open_interpreter(str(names[heads]), num_threads=1)
    tokens = {text: opened[heads].prepare(text) for text in chosen}
    for name in (BACKBONE, END_TO_END):
        tasks[name] = partial(_call, interpreter.get_signature_runner(name), tokens)
    # Opening is timed separately; both files are in the page cache by now.
    opening = {str(count): _opening(path, chosen[0]) for count, path in names.items()}
    turns = take_turns(tasks, np.array(chosen, object), rounds, random.Random(_SEED))
    return {"opening": opening, "turns": turns}


def _call(runner: Any, tokens: Mapping[bytes, np.ndarray], text: bytes) -> Any:
    return runner(tokens=tokens[text])


def _opening(path: Path, text: bytes, times: int = 20) -> float:
    """Median milliseconds from opening the file to the first answer of one head."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        with MultiHeadClassifier(path, num_threads=1) as classifier:
            classifier.classify_text(text, heads=[0])
        found.append((time.perf_counter() - start) * 1000)
    return float(np.median(found))


def _own_weights(metadata: Metadata, labels: int) -> int:
    """Bytes of a dense layer on the features: int8 kernel, int32 bias."""
    return labels * (int(np.prod(metadata.seam[0].shape)) + 4)


def _file(folder: Path, heads: int) -> Path:
    return folder / f"{heads}.tflite"


def judge(built: Mapping[str, Any], alone: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, float]:
    """All figures that have a target. Ratios are of medians; all tasks took turns."""
    median = {name: float(np.median([ms for _, ms in times])) for name, times in answers["turns"].items()}
    heads = len(built["own_weights"])
    others = built["bytes"] - alone["bytes"] - sum(built["own_weights"][1:])
    return {
        "bytes a head beside its weights": others / (heads - 1),
        "one of many": median[f"one of {heads}"] / median["one of 1"],
        "all in one call": median[END_TO_END] / median[BACKBONE],
        "build seconds": built["seconds"],
        "mean agreement": float(np.mean(built["agreement"])),
        "worst agreement": float(np.min(built["agreement"])),
        "backbone ms": median[BACKBONE],
        "opening to first answer": answers["opening"][str(heads)] / answers["opening"]["1"],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """The figures beside their targets, ready for the docs."""
    told, found = results["machine"], results["figures"]
    versions = ", ".join(f"{name} {told[name]}" for name in ("tensorflow", "keras", "litert-quantizer"))
    targets = {**{name: f"at most {target:g}" for name, target in TARGETS.items()}}
    targets.update({f"{name} agreement": f"at least {target:g}" for name, target in AGREEMENT.items()})
    rows = [f"| {name} | {value:.4g} | {targets.get(name, '')} |" for name, value in found.items()]
    head = f"{told['processor']}, {told['cores']} cores; {versions}; load average at the start {told['load_average']}."
    sizes = f"{results['heads']} heads: {results['bytes']:,} bytes; one head: {results['bytes_alone']:,} bytes."
    return "\n".join([head, "", sizes, "", "| figure | measured | target |", "| --- | ---: | --- |", *rows]) + "\n"


CHILDREN: dict[str, Callable[..., Any]] = {"files": make_files, "build": build_file, "answers": time_answers}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"))
@click.option("--heads", type=click.IntRange(2), default=200)
@click.option("--rounds", type=click.IntRange(5), default=400)
def main(output: Path, heads: int, rounds: int) -> None:
    """Measure many text heads in one file: bytes, latency, build time, agreement."""
    folder = output.resolve() / f"text_{heads}"
    folder.mkdir(parents=True, exist_ok=True)
    with terminal() as stream:
        stages = Stages(stream)
        if not (folder / CONFIG).is_file():
            with stages("files"):
                run_child("benchmarks.text", "files", folder, heads)
        with stages("build"):
            built, alone = (run_child("benchmarks.text", "build", folder, count) for count in (heads, 1))
        with stages("answers"):
            answers = run_child("benchmarks.text", "answers", folder, heads, rounds)
    figures = judge(built, alone, answers)
    results = {"machine": machine(), "heads": heads, "bytes": built["bytes"], "bytes_alone": alone["bytes"]}
    results.update(figures=figures, build=built["stages"], answers=answers)
    text = markdown(results)
    (output / "text.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (output / "text.md").write_text(text, "utf-8")
    click.echo(text)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in CHILDREN:
        print(json.dumps(CHILDREN[sys.argv[1]](Path(sys.argv[2]), *map(int, sys.argv[3:]))))
    else:
        main()
