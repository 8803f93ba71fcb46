"""Models that were built before, to be given the weights of another file.

To build a model takes longer than to load its weights, and the files of one build are often of few architectures.
"""

from __future__ import annotations

import contextlib
import gc
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py

from builder.reading.originals.nameless import spelled

_MOST = 1 << 27  # numbers in the models kept
_WEIGHTS = "model.weights.h5"
_MEMBERS = {"metadata.json", "config.json", _WEIGHTS}  # of an archive without vocabularies or other files
_DEFINITION = "model_config"  # an attribute of HDF5 files


class BuiltModels:
    """Loads model files by their framework, one in use at a time.

    ``keras``: tf_keras, where a model within a model is built once too. In Keras 3 that cannot be: it numbers the calls
    of a layer from the first on, so that a model cannot be called in another again.
    """

    def __init__(self, keras: Any = None) -> None:
        self._kept: dict[str, Any] = {}
        self._inner = None if keras is None else _InnerModels(keras)

    def load(self, path: Path, load: Callable[[Mapping[str, Any] | None], Any]) -> Any:
        """The model in ``path``, as ``load`` loads it with the custom objects that it is given; where one of its settings
        was built, that one with new weights.
        """
        key = _settings(path)
        model = self._kept.pop(key, None) if key is not None else None
        if key is not None and model is not None:
            with contextlib.suppress(Exception):  # ``load`` tells why
                model.load_weights(_weights(path))
                self._kept[key] = model
                return model
        model = load(None if self._inner is None else self._inner.again())
        if key is not None and not _has_state(model):
            self._kept[key] = model
            while sum(one.count_params() for one in self._kept.values()) > _MOST and len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
                gc.unfreeze()
            gc.collect()
            gc.freeze()  # the collection after each job does not search the models that are kept
        return model


class _InnerModels:
    """Models within models, which the framework gives the weights of a file whenever it loads one."""

    _MOST = 4  # models kept

    def __init__(self, keras: Any) -> None:
        self._keras, self._models = keras, dict[str, Any]()

    def again(self) -> Mapping[str, Any]:
        """Custom objects for the framework, for loading one model."""
        models, keras, taken = self._models, self._keras, set[str]()
        for old in list(models)[: -self._MOST]:
            del models[old]

        class Known:
            @classmethod
            def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
                settings = json.dumps({**config, "name": None}, sort_keys=True, default=str)
                count = 0
                while (key := f"{count} {settings}") in taken:  # another of the same settings, with weights of its own
                    count += 1
                taken.add(key)
                if key not in models:
                    models[key] = keras.Model.from_config(config, custom_objects)
                models[key]._name = config.get("name", models[key].name)
                return models[key]

        return {"Functional": Known, "Model": Known}


def _weights(path: Path) -> str:
    """The file for ``load_weights``. Unpacked from an archive, it is not read through a decompressor piece by piece."""
    if h5py.is_hdf5(path):
        return str(path)
    with zipfile.ZipFile(path) as archive:
        return archive.extract(_WEIGHTS, path.parent)


def _settings(path: Path) -> str | None:
    """All settings of the model in ``path`` but names; None where these are not the whole of its definition."""
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            text = file.attrs.get(_DEFINITION)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json") if set(archive.namelist()) <= _MEMBERS else None
    else:
        return None
    if text is None:
        return None
    definition = json.loads(text)
    return f"{definition['class_name']} {spelled(definition['config'])}"


def _has_state(model: Any) -> bool:
    """Whether a layer keeps something from one call to the next."""
    return any(getattr(layer, "stateful", False) is True for layer in model._flatten_layers())
