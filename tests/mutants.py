"""Mutation tests of a sample of the core modules' lines: ``python -m tests.mutants --count 60 --seed 0``.

A mutant is one small change of one module, made by cosmic-ray in a copy of the project. The tests of the module run on it
and should fail. Mutants that survive are listed, with the reason where ``ACCEPTED`` has one. This is not part of the test
suite, because each mutant takes as long as its tests.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OF_ALL = ("test_values",)  # laws that hold for every module
# Every core module with the tests of its laws, the fastest first.
MODULES: dict[str, tuple[str, ...]] = {
    "builder/reading/pixel_forms.py": ("test_pixel_forms", "test_scaling_notes"),
    "builder/reading/pixel_layers.py": ("test_pixel_forms", "test_scaling_notes"),
    "builder/settings/input_scaling.py": ("test_pixels", "test_pixel_forms"),
    "builder/reading/simplify.py": ("test_pixel_forms", "test_tutorial_models", "test_backbone"),
    "builder/reading/spelling.py": ("test_layer_forms", "test_backbone"),
    "builder/reading/digests.py": ("test_layer_forms", "test_backbone"),
    "builder/reading/shapes.py": ("test_reading_calls", "test_layer_forms"),
    "builder/reading/padding.py": ("test_layer_forms", "test_backbone"),
    "builder/reading/graph.py": ("test_reading_calls", "test_backbone", "test_formats_tf_keras"),
    "builder/reading/keras_graph.py": ("test_reading_calls", "test_backbone", "test_formats_tf_keras"),
    "builder/merging/difference.py": ("test_difference", "test_backbone"),
    "builder/merging/backbone.py": ("test_backbone", "test_difference"),
    "builder/merging/merge.py": ("test_reading_calls", "test_backbone", "test_convert"),
    "builder/merging/equivalence.py": ("test_backbone",),
    "builder/tflite/link.py": ("test_quantization_and_link", "test_build"),
    "builder/tflite/splice.py": ("test_quantization_and_link", "test_mixed"),
    "builder/reading/outputs.py": ("test_outputs", "test_trained"),
    "builder/reading/originals/shared.py": ("test_shared_originals",),
    "builder/reading/originals/nameless.py": ("test_shared_originals",),
    "builder/reading/scaling_notes.py": ("test_scaling_notes",),
    "builder/judging/verify.py": ("test_calibration_and_verification",),
    "builder/quantizing/accumulators.py": ("test_accumulators",),
    "builder/quantizing/fold.py": ("test_prepare",),
    "builder/quantizing/prepare.py": ("test_prepare",),
    "builder/quantizing/spare.py": ("test_prepare",),
    "builder/quantizing/channels.py": ("test_swish", "test_equalize"),
    "builder/quantizing/swish.py": ("test_swish",),
    "builder/quantizing/response.py": ("test_swish", "test_ranges"),
    "builder/quantizing/learn_layer.py": ("test_left_out_inputs", "test_rounding", "test_noise"),
    "builder/quantizing/rounding.py": ("test_left_out_inputs", "test_rounding", "test_noise"),
    "builder/quantizing/sums.py": ("test_sums",),
    "builder/quantizing/steps.py": ("test_steps",),
    "builder/reading/formats/keras2_weights.py": ("test_formats_tf_keras",),
    "builder/tflite/stepper.py": ("test_rounding", "test_writer"),
    "builder/joint/graph.py": ("test_joint_build", "test_router"),
    "edge_runtime/text.py": ("test_text_tokenizer_json", "test_text_tokens"),
    "edge_runtime/temporary.py": ("test_temporary",),
    "edge_runtime/word_index.py": ("test_text_tokenizer_json",),
}
IGNORED_OPERATORS = (
    "core/ReplaceBinaryOperator_BitOr_",  # "|" occurs in annotations, which are never evaluated
    "core/ReplaceComparisonOperator_Is_Eq",  # None, classes and functions are equal only to themselves
    "core/ReplaceComparisonOperator_IsNot_NotEq",
)
# Mutants that are equivalent: "module:line of the source, stripped": why no test can tell them from the original.
ACCEPTED: dict[str, str] = {
    "builder/quantizing/prepare.py:SAMPLES = 64": "the number of samples: one more or less makes no difference",
    "builder/quantizing/accumulators.py:shape[int(found.quantizedDimension)] = -1": (
        "numpy accepts any negative number for the remaining length"
    ),
    'edge_runtime/temporary.py:_HOW = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | '
    'getattr(os, "O_CLOEXEC", 0)': "the default of a flag on systems that do not have it",
    "builder/quantizing/rounding.py:with threadpool_limits(1):  # a layer's products are small: two threads take a third "
    "longer": "the number of threads: the results are the same",
    "builder/quantizing/rounding.py:with threadpool_limits(1):  # as above": (
        "the number of threads: the results are the same"
    ),
    "builder/reading/spelling.py:"
    'return (kind if several and kind in (*_COMMUTATIVE, "Subtract") else f"ops.{kind}"), settings': (
        "only the name of an operation without settings: no layer of this name takes the same arguments"
    ),
}
# A guard against mistakes in the code itself. It never fails, so no test can tell that it is gone.
GUARD = "strict=True"
SECONDS = 900  # for the tests of one mutant; a mutant that runs longer is caught


@dataclass(frozen=True)
class Mutant:
    module: str
    operator: str
    occurrence: int
    line: int


def all_mutants(module: str) -> Iterator[Mutant]:
    """Yield one mutant for each line and family of operators, so that lines with many operators do not count more."""
    from cosmic_ray.commands.init import _all_work_items

    seen = set()
    for item in _all_work_items([ROOT / module], {}):
        mutation = item.mutations[0]
        family = mutation.operator_name.rpartition("/")[2].split("_")[0]
        line = mutation.start_pos[0]
        if mutation.operator_name.startswith(IGNORED_OPERATORS) or (line, family) in seen:
            continue
        seen.add((line, family))
        yield Mutant(module, mutation.operator_name, mutation.occurrence, line)


def passes(module: str, copy: Path) -> bool:
    """Whether the tests of a module pass on the copy. Tests that do not end do not pass."""
    tests = [f"tests/{name}.py" for name in (*OF_ALL, *MODULES[module])]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-W", "ignore", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def caught(mutant: Mutant, copy: Path, sound: set[str]) -> bool:
    """Whether a test of its module fails on the mutant. ``sound``: modules whose tests pass without a mutant."""
    import cosmic_ray.plugins
    from cosmic_ray.mutating import use_mutation

    operator = cosmic_ray.plugins.get_operator(mutant.operator)()
    with use_mutation(copy / mutant.module, operator, mutant.occurrence):
        survived = passes(mutant.module, copy)
    if not survived and mutant.module not in sound and not passes(mutant.module, copy):
        sys.exit(f"{mutant.module}: its tests fail without a mutant")
    sound.add(mutant.module)
    return not survived


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--module", action="append", choices=list(MODULES), help="only this module; may be repeated")
    chosen = parser.parse_args()
    everything = [mutant for module in chosen.module or MODULES for mutant in all_mutants(module)]
    sample = random.Random(chosen.seed).sample(everything, min(chosen.count, len(everything)))
    found, unexplained, sound = 0, 0, set[str]()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Path(folder)
        for name in ("builder", "edge_runtime", "tests", "pyproject.toml"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        for number, mutant in enumerate(sample, 1):
            source = (ROOT / mutant.module).read_text("utf-8").splitlines()[mutant.line - 1].strip()
            guard = GUARD in source and mutant.operator.endswith("ReplaceTrueWithFalse")
            reason = "a guard that never fails" if guard else ACCEPTED.get(f"{mutant.module}:{source}")
            told = f"stays: {reason}" if reason else "caught" if caught(mutant, copy, sound) else "SURVIVED"
            found, unexplained = found + (told == "caught"), unexplained + (told == "SURVIVED")
            print(f"{number}/{len(sample)} {told}: {mutant.module}:{mutant.line} {mutant.operator}: {source}", flush=True)
    print(f"{found} of {len(sample)} caught, {unexplained} survived without a reason; {len(everything)} mutants in all")


if __name__ == "__main__":
    main()
