"""One process of ``benchmarks.lean``: open a file and classify one picture; imports are not timed.

    python -m benchmarks.lean_child bare|polyhead FILE PICTURE INTERPRETER

Prints a line of JSON: milliseconds from opening the file to the answers of all heads, and resident MB afterwards.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path


def bare(file: str, picture: str, name: str) -> Callable[[], object]:
    """The same with the interpreter alone, as a program without polyhead would do it."""
    import importlib

    import numpy as np
    from PIL import Image

    factory = importlib.import_module(f"{name}.interpreter").Interpreter

    def answer() -> object:
        interpreter = factory(model_path=file, num_threads=1)
        backbone = interpreter.get_signature_runner("backbone")
        _, height, width, _ = interpreter.get_input_details()[0]["shape"]
        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        features = backbone(image=pixels[None])["features"]
        heads = [n for n in interpreter.get_signature_list() if n not in ("backbone", "joint", "serving_default")]
        scores = {n: interpreter.get_signature_runner(n)(features=features)["scores"][0] for n in heads}
        return interpreter, {n: (int(s.argmax()), int(s.max())) for n, s in scores.items()}

    return answer


def polyhead(file: str, picture: str, name: str) -> Callable[[], object]:
    from edge_runtime import MultiHeadClassifier
    from edge_runtime.interpreter import find_interpreter

    find_interpreter(name)

    def answer() -> object:
        classifier = MultiHeadClassifier(file, interpreter=name, num_threads=1)
        return classifier, classifier.classify(picture, top_k=1)

    return answer


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def main() -> None:
    which, file, picture, name = sys.argv[1:]
    answer = {"bare": bare, "polyhead": polyhead}[which](file, picture, name)
    start, start_cpu = time.perf_counter(), time.process_time()
    kept = answer()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    print(json.dumps({"ms": seconds * 1000, "cpu_ms": cpu_seconds * 1000, "resident_mb": resident_kib() / 1024}))
    del kept  # its memory is counted above


if __name__ == "__main__":
    main()
