"""Stored features -> labelled samples, so that a head is trained without running the base again.

They are an ``.npz`` file of ``edge-runtime features``, or a result of ``builder score --features``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from builder.support.arrays import pooled
from builder.support.errors import ConfigError, SamplesError
from builder.training.samples import Samples, labelled
from edge_runtime.feature_file import SUFFIX
from edge_runtime.metadata import FEATURES, ImageInput
from edge_runtime.preprocess import image_tensor
from edge_runtime.quantization import Quantization

if TYPE_CHECKING:
    from builder.training.base import Base  # imports TensorFlow

REQUEST = "score.json"  # in every folder that builder score wrote
_COMPARED = 4  # pictures that the base is run on, to see that the features are its own
_AGREEMENT = 0.9  # correlation over the features of a picture: of one base in float and int8 0.99, of two bases about 0
_ADVICE = "give the base of the file that they were computed with as --backbone"


def holds_features(path: Path) -> bool:
    """Is ``path`` a file or a folder of stored features, by its name or by what lies in it?"""
    return path.suffix.lower() == SUFFIX or (path / REQUEST).is_file()


def read_features(path: Path, *, group_by: str | None = None) -> Samples:
    """Samples whose ``inputs`` are features, float32 (n, features); a map is averaged over its places.

    A label is the name of the folder that a picture lay in. Rows with an error are left out. ``group_by``: see
    ``samples.read_class_folders``. Raises ``ConfigError`` and ``SamplesError``.
    """
    features, sources = _of_file(path) if path.suffix.lower() == SUFFIX else _of_result(path)
    if not np.isfinite(features).all():
        raise ConfigError(f"{path}: some features are NaN or infinite; compute them again")
    return labelled(pooled(features).astype(np.float32), sources, path, group_by=group_by)


def check_base(base: Base, samples: Samples, where: Path, spec: ImageInput) -> None:
    """Were the features made by ``base``? It is run on a few of the pictures, as far as they are still there.

    ``spec``: of the base. Raises ``ConfigError`` where features have another length, or are another base's.
    """
    length, found = base.model.output_shape[-1], samples.inputs.shape[1]
    if found != length:
        raise ConfigError(f"{where}: expected {length} features of a picture, as of the base, found {found}; {_ADVICE}")
    there = [i for i, source in enumerate(samples.sources) if Path(source).is_file()][:_COMPARED]
    if not there:
        return
    pictures = np.concatenate([image_tensor(samples.sources[i], spec) for i in there]).astype(np.float32)
    own = np.asarray(base.model(pictures, training=False))
    own, stored = (values - values.mean(1, keepdims=True) for values in (own, samples.inputs[there]))
    norms = np.linalg.norm(own, axis=1) * np.linalg.norm(stored, axis=1)
    alike = float(np.median((own * stored).sum(1) / np.maximum(norms, 1e-12)))
    if alike < _AGREEMENT:
        raise ConfigError(
            f"{where}: expected features of this base, found those of another (correlation {alike:.2f}); {_ADVICE}"
        )


def _of_file(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = [name.removesuffix("_scale") for name in arrays.files if name.endswith("_scale")]
            _check_tensors(path, names)
            (name,) = names
            scale, zero_point, values = (arrays[key] for key in (f"{name}_scale", f"{name}_zero_point", name))
            real = Quantization(float(scale), int(zero_point), values.dtype).dequantize(values)
            return real, [str(source) for source in arrays["paths"]]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: expected features that edge-runtime features wrote ({error})") from error


def _of_result(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        from builder.scoring.rows import TENSOR
        from builder.scoring.stored import open_result
    except ImportError as error:
        raise ConfigError(f"{path}: reading it needs pyarrow: pip install 'polyhead[cluster]'") from error
    result, found, sources = open_result(path), list[np.ndarray](), list[str]()
    schema = result.schema
    names = [name for name in schema.names if name == FEATURES or name.startswith(f"{FEATURES}_")]
    _check_tensors(path, names)
    described = (schema.field(names[0]).metadata or {}).get(TENSOR.encode())
    if described is None:
        raise ConfigError(f"{path}: expected features with their scale, found none; score again with this version")
    tensor = json.loads(described)
    for table in result.tables(["source", "error", names[0]]):
        read = table.filter(table.column("error").is_null())
        sources += read.column("source").to_pylist()
        values = read.column(names[0]).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        found.append(values.reshape(read.num_rows, *tensor["shape"]))
    stored = np.concatenate(found)
    return Quantization(tensor["scale"], tensor["zero_point"], stored.dtype).dequantize(stored), sources


def _check_tensors(path: Path, names: Sequence[str]) -> None:
    if len(names) != 1:
        raise SamplesError(
            f"{path}: expected the features of one tensor, found {len(names)}"
            + ("; score with --features" if not names else f" ({', '.join(names)}): its heads read more than features")
        )
