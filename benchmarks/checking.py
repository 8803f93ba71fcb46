"""Measure how long the check of a file takes while it is opened: ``python -m benchmarks.checking FILE``.

The whole flatbuffer is checked before an interpreter reads it. Each figure is processor time, the smallest of many runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from edge_runtime import MultiHeadClassifier
from edge_runtime.bundle import read_metadata
from edge_runtime.flatbuffer import check_model


def smallest_ms(run: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        began = time.process_time()
        run()
        found.append(time.process_time() - began)
    return 1e3 * min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    metadata = read_metadata(str(file))
    model = file.read_bytes()[: metadata.model_bytes]
    check = smallest_ms(lambda: check_model(model), 60)
    whole = smallest_ms(lambda: MultiHeadClassifier(file).close(), 20)
    print(f"{len(metadata.heads)} heads, {len(model):,} bytes: {check:.1f} ms of the {whole:.1f} ms that opening takes")


if __name__ == "__main__":
    main()
