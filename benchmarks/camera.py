"""Measure the frames per second of ``Camera`` relative to the bare backbone, and how regular its frames are.

    python -m benchmarks.camera build/demo.tflite calibration_data/held_out --frames 10000 --threads 1

Blocks of camera frames (a folder in a loop, every head on every frame, a JSON line for each) alternate with blocks of the
bare backbone (the interpreter's signature on the same tensor), so that both run under the same load. The time of a frame
is the time from one answer to the next. ``cpu`` is the processor time of the answering thread. Other work on the machine
disturbs it less, and it does not include waiting for a picture or for the reading thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.summary import Target, at_least, at_most
from edge_runtime import MultiHeadClassifier
from edge_runtime.camera import Camera
from edge_runtime.camera.frame_lines import frame_json
from edge_runtime.interpreter import open_interpreter

BLOCK = 250  # frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("source")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    document = measure(options.file, options.source, options.frames, options.threads)
    document["targets"] = [asdict(target) for target in targets(document)]
    text = json.dumps(document, indent=1)
    if options.output:
        options.output.write_text(text, "utf-8")
    print(text)


def targets(document: Mapping[str, Any]) -> list[Target]:
    return [
        at_least("frames per second, of what the bare backbone allows", document["ratio_median_of_blocks"], 0.95),
        at_most("JSON of a frame, median, ms", document["json_ms"]["median"], 0.2),
        at_most("p99 of a frame, of its median", document["p99_over_median"], 1.5),
    ]


def measure(file: str, source: str, frames: int, threads: int) -> dict[str, Any]:
    _, interpreter = open_interpreter(file, num_threads=threads)
    runner = interpreter.get_signature_runner("backbone")
    seen_ms: list[float] = []
    line_ms: list[float] = []
    bare_ms: list[float] = []
    seen_cpu: list[float] = []
    bare_cpu: list[float] = []
    with MultiHeadClassifier(file, num_threads=threads) as classifier:
        image = None
        while len(seen_ms) < frames:
            with Camera(classifier, source, loop=True) as camera:
                last = last_cpu = 0.0
                for seen in islice(camera, BLOCK + 1):
                    image = seen.frame.image
                    begin = time.perf_counter()
                    frame_json(seen, fps=0.0, dropped=0, temperature=None)
                    now = time.perf_counter()
                    line_ms.append((now - begin) * 1000)
                    cpu = time.thread_time()
                    if last:  # the first frame of a block waits for its preparation
                        seen_ms.append((now - last) * 1000)
                        seen_cpu.append((cpu - last_cpu) * 1000)
                    last, last_cpu = now, cpu
            for _ in range(BLOCK):
                begin, cpu = time.perf_counter(), time.thread_time()
                runner(image=image)
                bare_ms.append((time.perf_counter() - begin) * 1000)
                bare_cpu.append((time.thread_time() - cpu) * 1000)
    cpu_ms = {"camera": round(float(np.median(seen_cpu)), 3), "bare": round(float(np.median(bare_cpu)), 3)}
    times = document(np.asarray(seen_ms), np.asarray(bare_ms), np.asarray(line_ms))
    return {**times, "cpu_ms": {**cpu_ms, "ratio": round(cpu_ms["bare"] / cpu_ms["camera"], 4)}}


def document(seen: np.ndarray, bare: np.ndarray, line: np.ndarray) -> dict[str, Any]:
    blocks = [float(np.sum(b) / np.sum(s)) for s, b in zip(_blocks(seen), _blocks(bare), strict=True)]
    return {
        "frames": len(seen),
        "camera_frames_per_second": round(1000 / float(seen.mean()), 2),
        "bare_backbone_per_second": round(1000 / float(bare.mean()), 2),
        "ratio_median_of_blocks": round(float(np.median(blocks)), 4),
        "frame_ms": {"median": round(float(np.median(seen)), 3), "p99": round(float(np.percentile(seen, 99)), 3)},
        "bare_ms": {"median": round(float(np.median(bare)), 3), "p99": round(float(np.percentile(bare, 99)), 3)},
        "p99_over_median": round(float(np.percentile(seen, 99) / np.median(seen)), 3),
        "json_ms": {"median": round(float(np.median(line)), 4), "p99": round(float(np.percentile(line, 99)), 4)},
    }


def _blocks(values: np.ndarray) -> np.ndarray:
    return values[: len(values) // BLOCK * BLOCK].reshape(-1, BLOCK)


if __name__ == "__main__":
    main()
