"""Take a finished file apart and reassemble it with other heads; those that stay answer bit for bit as before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from builder.joint.layout import lay_out
from builder.support.errors import ConversionError, ModelFileError
from builder.support.files import write_text
from builder.tflite.flatbuffer import Part, tensor_name
from builder.tflite.link import link, unlink
from edge_runtime.bundle import append_members, read_model
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.files import read_file
from edge_runtime.inputs import InputSpec
from edge_runtime.metadata import BACKBONE, HeadInfo, Metadata
from edge_runtime.seam import by_name
from edge_runtime.text import TextInput

if TYPE_CHECKING:
    from builder.joint import JointHead

Heads = dict[str, tuple[HeadInfo, Part]]
NOISE_SAMPLES = 4  # seeded, where there are no pictures to compare on
PROOF_SAMPLES = 8
MAX_REPORT = 64 << 20  # bytes


@dataclass(frozen=True)
class Finished:
    """``parts``: backbone and heads in the file's order. ``joint``: the joint part, if there is one."""

    path: Path
    metadata: Metadata
    parts: Mapping[str, Part]
    joint: Part | None

    def head(self, name: str) -> HeadInfo:
        """A head by name. Raises ``ModelFileError`` where the file has no such head."""
        for info in self.metadata.heads:
            if info.head_name == name:
                return info
        names = ", ".join(info.head_name for info in self.metadata.heads[:20])
        raise ModelFileError(f"{self.path}: expected one of its heads ({names}), found {name!r}")


@dataclass(frozen=True)
class Kept:
    """The number of heads compared before and after, and of samples; ``noise``: whether these were noise."""

    heads: int
    samples: int
    noise: bool


def read_finished(path: Path) -> Finished:
    """Read a finished file. Raises ``BundleError`` for any other or damaged file, and ``OSError``."""
    metadata, model = read_model(str(path))
    parts, joint = unlink(model, [info.head_name for info in metadata.heads])
    return Finished(path, metadata, parts, joint)


def with_heads(
    file: Finished, heads: Mapping[str, tuple[HeadInfo, Part]], joint: JointHead | None
) -> tuple[Finished, bytes]:
    """The file with these heads, in this order, and its bytes. ``joint``: the new joint head, or None."""
    parts = {BACKBONE: file.parts[BACKBONE], **{name: part for name, (_, part) in heads.items()}}
    table = None if joint is None else joint.to_json()
    return _linked(file, parts, [info for info, _ in heads.values()], None if joint is None else joint.part, table)


def renamed(file: Finished, old: str, new: str) -> tuple[Finished, bytes]:
    """The file with one head under another name, also in its joint list."""
    names = {info.head_name: new if info.head_name == old else info.head_name for info in file.metadata.heads}
    infos = [replace(info, head_name=names[info.head_name]) for info in file.metadata.heads]
    parts = {names.get(name, name): _with_prefix(part, old, new) for name, part in file.parts.items()}
    table, joint = file.metadata.joint, file.joint
    if table is not None and joint is not None:
        table = _renamed_joint(table, names, infos)
        joint = replace(joint, inputs={names.get(name, name): i for name, i in joint.inputs.items()})
    quality = dict(file.metadata.quality)
    if "heads" in quality:
        quality["heads"] = {names.get(name, name): figures for name, figures in quality["heads"].items()}
    metadata = replace(file.metadata, quality=quality)
    return _linked(replace(file, metadata=metadata), parts, infos, joint, table)


def _linked(
    file: Finished,
    parts: Mapping[str, Part],
    infos: Sequence[HeadInfo],
    joint: Part | None,
    table: Mapping[str, Any] | None,
) -> tuple[Finished, bytes]:
    linked = link(parts, joint)
    quality = dict(file.metadata.quality)
    if "heads" in quality:
        names = [info.head_name for info in infos]
        quality["heads"] = {name: quality["heads"][name] for name in names if name in quality["heads"]}
    metadata = replace(
        file.metadata,
        heads=tuple(replace(info, bytes=linked.head_bytes[info.head_name]) for info in infos),
        model_bytes=len(linked.model),
        min_runtime=linked.min_runtime,
        joint=table,
        quality=quality,
    )
    return Finished(file.path, metadata, parts, joint), append_members(linked.model, metadata)


def _with_prefix(part: Part, old: str, new: str) -> Part:
    """Rename the tensors of head ``old``, which are named ``head/tensor``."""
    for tensor in part.tensors:
        name = tensor_name(tensor)
        if name.startswith(f"{old}/"):
            tensor.name = f"{new}{name[len(old) :]}"
    return part


def _renamed_joint(table: Mapping[str, Any], names: Mapping[str, str], infos: Sequence[HeadInfo]) -> dict[str, Any]:
    def by_new_name(values: Mapping[str, Any]) -> dict[str, Any]:
        return {names.get(name, name): value for name, value in values.items()}

    return {
        **table,
        "labels": list(lay_out(infos, none=table["none"], merge=table["merge_labels"]).labels),
        "gated": [names[name] for name in table["gated"]],
        "head_thresholds": by_new_name(table["head_thresholds"]),
        "pictures": by_new_name(table["pictures"]),
    }


def noise(spec: InputSpec) -> np.ndarray:
    """Noise to compare on where there are no samples: (samples, ...) as the backbone takes them, always the same."""
    values = len(spec.vocabulary) if isinstance(spec, TextInput) else 256
    return np.random.default_rng(0).integers(0, values, (NOISE_SAMPLES, *spec.shape[1:]), spec.dtype)


def prove_kept(old: Path, new: Path, heads: Mapping[str, str], tensors: np.ndarray | None) -> Kept:
    """Check on samples that the features and the scores of every head that stayed are the same, bit for bit.

    ``heads``: the name in the old file -> in the new one. ``tensors``: (samples, ...) as the backbone takes them; without
    any, noise. Raises ``ConversionError``.
    """
    with MultiHeadClassifier(old, head_packs=()) as before, MultiHeadClassifier(new, head_packs=()) as after:
        shown = noise(before.metadata.input) if tensors is None else tensors[:PROOF_SAMPLES]
        for tensor in shown:
            expected, found = before.features_of(tensor[None]), after.features_of(tensor[None])
            _check_equal("the backbone", by_name(expected).values(), by_name(found).values())
            for name, now in heads.items():
                _check_equal(f"head {name}", [before.head_scores(expected, name)], [after.head_scores(found, now)])
    return Kept(len(heads), len(shown), noise=tensors is None)


def _check_equal(what: str, expected: Iterable[np.ndarray], found: Iterable[np.ndarray]) -> None:
    if not all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True)):
        raise ConversionError(f"{what} would answer differently than before; nothing was written")


def record(output: Path, folder: Path, entry: Mapping[str, Any]) -> None:
    """Append a change to ``changes`` in the ``report.json`` of the same file's build."""
    document = _report_of(output, folder) or {"output": str(output)}
    document["changes"] = [*document.get("changes", []), dict(entry)]
    write_text(folder / "report.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def saved_model_of(file: Path, folder: Path) -> str | None:
    """The SavedModel that the build of ``file`` wrote, from its report in ``folder``; None where it wrote none."""
    found = (_report_of(file, folder) or {}).get("saved_model")
    return found if isinstance(found, str) else None


def _report_of(file: Path, folder: Path) -> dict[str, Any] | None:
    """The ``report.json`` of this file; files are compared by name only, since paths have many spellings."""
    try:
        document = json.loads(read_file(folder / "report.json", MAX_REPORT))
    except (OSError, ValueError):
        return None
    known = Path(str(document.get("output"))).name if isinstance(document, dict) else ""
    return document if known in (file.name, file.resolve().name) else None
