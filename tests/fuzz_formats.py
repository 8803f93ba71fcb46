"""Damage model files, and tell how reading one ends: with a model or with a ``ModelFileError``.

``tests.fuzz`` uses these functions for as long as you like, ``test_formats_fuzz`` briefly in every test run.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

HOSTILE: list[Any] = [
    *(None, True, 0, -1, 1, 3, 10**12, -(10**30), 1e308, float("nan"), "", "a/b", "../../etc/passwd", "\n", "os.system"),
    *("Lambda", "softmax", "Functional", "Sequential", "TFOpLambda", "hard_sigmoid", "keras", "float16", "mixed_float16"),
    *([], [[]], [None], [[["image", 0, 0, {}]]], ["image", 0, 0], {}, "channels_first"),
    {"class_name": "Lambda"},
    {"class_name": "__tensor__"},
    {"class_name": "__lambda__", "config": {"value": "x"}},
    {"class_name": "__keras_tensor__", "config": {}},
    {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}},
    {"class_name": "__tuple__", "items": [1, 2]},
    {"module": "os", "class_name": "function", "config": "system"},
    {"class_name": "Dense", "config": {"units": 10**15}},
]


def mutated_json(text: bytes | str, rng: random.Random) -> str:
    """The JSON with one to three of its values, keys or list items replaced by hostile ones, moved or removed."""
    value = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(value))
        if not places:
            break
        holder, key = rng.choice(places)
        action = rng.randrange(6)
        if action == 0:
            del holder[key]
        elif action == 1:
            other_holder, other_key = rng.choice(places)
            holder[key] = json.loads(json.dumps(other_holder[other_key]))
        elif action == 2 and isinstance(holder, dict):
            names = ["class_name", "config", "name", "module", "layers", "inbound_nodes", "function"]
            holder[rng.choice(names)] = json.loads(json.dumps(holder[key]))
        elif action == 3 and isinstance(holder, list):
            holder.append(json.loads(json.dumps(holder[key])))
        else:
            holder[key] = copy.deepcopy(rng.choice(HOSTILE))
    return json.dumps(value)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """The data with a few bytes changed, removed or repeated, or without its end."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        if not changed:
            break
        place, action = rng.randrange(len(changed)), rng.randrange(6)
        if action == 0:
            del changed[place:]
        elif action == 1:
            del changed[place : place + rng.randint(1, 16)]
        elif action == 2:
            changed[place:place] = changed[place : place + rng.randint(1, 64)]
        elif action == 3:
            changed[place : place + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7])
        else:
            changed[place] = rng.randrange(256) if action == 4 else changed[place] ^ (1 << rng.randrange(8))
    return bytes(changed)


def mutated_hdf5(data: bytes, rng: random.Random) -> bytes:
    """The file with a changed configuration, or with a group or dataset removed, replaced or linked."""
    stream = io.BytesIO(data)
    with h5py.File(stream, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        if "model_config" in file.attrs and (rng.random() < 0.6 or not names):
            file.attrs["model_config"] = mutated_json(file.attrs["model_config"], rng)
            return _written(file, stream)
        name, action = rng.choice(names), rng.randrange(7)
        if action == 0:
            del file[name]
        elif action == 1:
            other = rng.choice(names)
            if not other.startswith(name) and not name.startswith(other):
                del file[name]
                file[name] = file[other]
        elif action == 2:
            del file[name]
            file[name] = rng.choice(
                [h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/")]
            )
        elif action == 3:
            del file[name]
            file.create_dataset(
                name, rng.choice([(), (0,), (3,), (1 << 40,)]), rng.choice(["f2", "i1", "S3", "f8"]), chunks=None
            )
        elif action == 4:
            del file[name]
            file.create_dataset(name, data=["text", "more"], dtype=h5py.string_dtype())
        elif action == 5:
            holder = file[name]
            for key in list(holder.attrs):
                holder.attrs[key] = rng.choice([1, "name", b"\xff\xfe", [b"a"], [1.5, 2.5], h5py.Empty("f4")])
        else:
            file[name].attrs["weight_names"] = [rng.choice(names).encode()] * 3
        return _written(file, stream)


def _written(file: h5py.File, stream: io.BytesIO) -> bytes:
    file.flush()
    return stream.getvalue()


def mutate_file(source: Path, target: Path, rng: random.Random) -> None:
    """Write a damaged copy of a file or a folder."""
    if source.is_dir():
        shutil.copytree(source, target)
        files = sorted(p for p in target.rglob("*") if p.is_file())
        victim = rng.choice(files)
        if rng.random() < 0.1:
            victim.unlink()
        elif rng.random() < 0.1:
            victim.write_bytes(rng.choice(files).read_bytes())
        else:
            victim.write_bytes(mutated_bytes(victim.read_bytes(), rng))
        return
    data = source.read_bytes()
    if rng.random() < 0.3:
        target.write_bytes(mutated_bytes(data, rng))
    elif zipfile.is_zipfile(source):
        _mutate_archive(source, target, rng)
    else:
        target.write_bytes(mutated_hdf5(data, rng))


def _mutate_archive(source: Path, target: Path, rng: random.Random) -> None:
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    if rng.random() < 0.1:
        members[name] = members[rng.choice(sorted(members))]
    elif rng.random() < 0.05:
        del members[name]
    elif name.endswith(".json"):
        members[name] = mutated_json(members[name], rng).encode()
    elif name.endswith(".h5") and rng.random() < 0.6:
        members[name] = mutated_hdf5(members[name], rng)
    else:
        members[name] = mutated_bytes(members[name], rng)
    with zipfile.ZipFile(target, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)


def outcome(path: Path, *, built: bool) -> str:
    """How reading ``path`` ends: the class of the error, or ``read``. ``built``: also rebuild what could be read."""
    from builder.reading.formats import read_model
    from builder.support.errors import ModelFileError

    try:
        model = read_model(path)
        if built:
            model.live()
    except ModelFileError as error:
        assert "\n" not in str(error), str(error)
        assert len(str(error)) < 1200, str(error)
        return "ModelFileError"
    return "read"
