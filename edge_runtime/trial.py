"""``python -m edge_runtime.trial FILE INTERPRETER PACK...``: the process in which ``isolate.py`` tries a file.

It opens FILE with its head packs and runs every head on a noise picture or a text.
"""

from __future__ import annotations

import sys

import numpy as np

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, said
from edge_runtime.text import TextInput


def try_file(path: str, interpreter: str, *packs: str) -> None:
    with MultiHeadClassifier(path, interpreter=interpreter or None, head_packs=packs) as classifier:
        spec, joint = classifier.metadata.input, classifier.joint is not None
        if isinstance(spec, TextInput):
            classifier.classify_text("a text", joint=joint)
        else:
            noise = np.random.default_rng(0).integers(0, 256, spec.shape[1:], dtype=np.uint8)
            classifier.classify(noise, joint=joint)


if __name__ == "__main__":
    try:
        try_file(*sys.argv[1:])
    except (EdgeRuntimeError, OSError) as error:
        sys.exit(said(error))
