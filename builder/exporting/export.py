"""Export a finished file for other clients. Every export is run and compared before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from builder.exporting.edgetpu import OnCpu, not_mapped
from builder.exporting.mediapipe import chosen_outputs, task_file
from builder.growing.finished import Finished, noise, read_finished
from builder.growing.packs import head_pack
from builder.support.errors import ConfigError, ConversionError
from builder.support.files import written, written_folder
from builder.support.places import check_file, check_folder
from builder.tflite.link import backbone_alone
from edge_runtime.bundle import PACK_FOLDER, PACK_SUFFIX, append_members, packs_beside
from edge_runtime.counting import count_of
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.image_input import ImageInput
from edge_runtime.interpreter import open_interpreter
from edge_runtime.metadata import BACKBONE, END_TO_END, JOINT
from edge_runtime.seam import by_name


@dataclass(frozen=True)
class Export:
    """``files``: the written files, the model first. ``notes``: what the user should know.

    For the Edge TPU, ``operators``: their number in the backbone; ``on_cpu``: those that it does not support.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    operators: int = 0
    on_cpu: tuple[OnCpu, ...] = ()


def export_task(file: Path, output: Path, heads: Sequence[str] = ()) -> Export:
    """Write one file for MediaPipe Tasks, with ``heads`` (which may include ``joint``) or all that ``file`` has.

    Raises ``BuilderError``, ``EdgeRuntimeError`` and ``OSError``; then nothing was written.
    """
    check_file(output)
    if output.resolve() == file.resolve():
        raise ConfigError(f"{output}: is the file itself, which a task file must not replace; choose another output")
    with MultiHeadClassifier(file, head_packs=()) as opened:
        metadata = opened.metadata
        if _check_pictures(file, opened).color != "RGB":
            raise ConfigError(
                f"{file}: MediaPipe Tasks takes only colour pictures, and this file takes greyscale; use split"
            )
        names = chosen_outputs(metadata, heads)
        if not names:
            raise ConfigError(f"{file}: a backbone without heads has no answers; export the file that it was split from")
        content = task_file(file.read_bytes()[: metadata.model_bytes], metadata, names)
        with written(output) as draft:
            draft.write_bytes(content)
            _prove_task(opened, draft, names)
    return Export((output,), _left_out_packs(file))


def export_split(file: Path, folder: Path) -> Export:
    """Write the backbone, and every head as a pack beside it, to the new or empty ``folder``. Raises as
    ``export_task``.
    """
    check_folder(folder)
    with MultiHeadClassifier(file, head_packs=()) as opened:
        return _split(opened, read_finished(file), folder)


def export_edgetpu(file: Path, folder: Path) -> Export:
    """As ``export_split``, for the Edge TPU's compiler, with operators checked against its documentation."""
    check_folder(folder)
    with MultiHeadClassifier(file, head_packs=()) as opened:
        _check_pictures(file, opened)
        finished = read_finished(file)
        types = {np.dtype(tensor.quantization.dtype).name for tensor in finished.metadata.seam}
        if types != {"int8"}:
            raise ConfigError(f"{file}: the Edge TPU takes int8 only, found a backbone in {', '.join(sorted(types))}")
        part = finished.parts[BACKBONE]
        return replace(_split(opened, finished, folder), operators=len(part.operators), on_cpu=not_mapped(part))


def _check_pictures(file: Path, opened: MultiHeadClassifier) -> ImageInput:
    spec = opened.metadata.input
    if not isinstance(spec, ImageInput):
        raise ConfigError(f"{file}: expected a file for pictures, found one for {spec.noun}")
    return spec


def _split(opened: MultiHeadClassifier, finished: Finished, folder: Path) -> Export:
    metadata, notes = finished.metadata, list(_left_out_packs(finished.path))
    if metadata.joint is not None:
        notes.append("the joint list is dropped: it needs all heads in one file")
    with written_folder(folder) as draft:
        main = draft / f"{finished.path.stem}.tflite"
        packs = main.with_suffix(PACK_FOLDER)
        packs.mkdir()
        main.write_bytes(_backbone_file(finished))
        for info, name in zip(metadata.heads, _pack_names(opened.head_names), strict=True):
            model, pack = head_pack(metadata, info, finished.parts[info.head_name])
            (packs / name).write_bytes(append_members(model, pack))
        _prove_split(opened, main, packs_beside(str(main)))
        files = [path.relative_to(draft) for path in (main, *sorted(packs.iterdir()))]
    return Export(tuple(folder / path for path in files), tuple(notes))


def _pack_names(heads: Sequence[str]) -> list[str]:
    """Names of packs, whose alphabetical order, in which the runtime reads them, is the file's order of heads."""
    if list(heads) == sorted(heads):
        return [f"{name}{PACK_SUFFIX}" for name in heads]
    return [f"{i:0{len(str(len(heads)))}d}-{name}{PACK_SUFFIX}" for i, name in enumerate(heads)]


def _backbone_file(finished: Finished) -> bytes:
    model, runtime = backbone_alone(finished.parts[BACKBONE])
    quality = {key: value for key, value in finished.metadata.quality.items() if key != "heads"}
    metadata = replace(
        finished.metadata, heads=(), joint=None, model_bytes=len(model), min_runtime=runtime, quality=quality
    )
    return append_members(model, metadata)


def _left_out_packs(file: Path) -> tuple[str, ...]:
    packs = packs_beside(str(file))
    return (f"left out: {count_of(len(packs), 'head packs')} beside {file}, to be copied separately",) if packs else ()


def _prove_split(before: MultiHeadClassifier, main: Path, packs: Sequence[str]) -> None:
    with MultiHeadClassifier(main, head_packs=packs) as after:
        if after.head_names != before.head_names:
            raise ConversionError("the exported heads are in another order; nothing was written")
        for tensor in noise(before.metadata.input):
            expected, found = before.features_of(tensor[None]), after.features_of(tensor[None])
            for name, values in by_name(expected).items():
                _check_same(f"the backbone's {name}", values, by_name(found)[name])
            for name in before.head_names:
                _check_same(f"head {name}", before.head_scores(expected, name), after.head_scores(found, name))


def _prove_task(opened: MultiHeadClassifier, task: Path, names: Sequence[str]) -> None:
    _, interpreter = open_interpreter(str(task))
    run = interpreter.get_signature_runner(END_TO_END)
    for tensor in noise(opened.metadata.input):
        features, found = opened.features_of(tensor[None]), run(image=tensor[None])
        for name in names:
            scores = opened.joint_scores(features)[0] if name == JOINT else opened.head_scores(features, name)
            _check_same(name, scores, found[name][0])


def _check_same(what: str, expected: np.ndarray, found: np.ndarray) -> None:
    if expected.dtype != found.dtype or not np.array_equal(expected, found):
        raise ConversionError(f"{what}: the exported file answers differently; nothing was written")
