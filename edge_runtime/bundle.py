"""The file: a TensorFlow Lite flatbuffer with zip members appended to it, ``polyhead.json`` and ``labels/<head>.txt``.

Interpreters see the flatbuffer and ignore what follows it; zip readers see the members and ignore what precedes them.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from typing import Any, Mapping

from edge_runtime.errors import BundleError
from edge_runtime.metadata import Metadata

METADATA_MEMBER = "polyhead.json"
IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every TensorFlow Lite flatbuffer
MAX_MEMBER_BYTES = 8 << 20  # a file is untrusted: no member may unpack to more
MAX_MEMBERS = 10_000
REBUILD = "build it again, or copy it again"


def labels_member(head_name: str) -> str:
    return f"labels/{head_name}.txt"


def append_members(model: bytes, metadata: Metadata) -> bytes:
    """The finished file: ``model`` (the flatbuffer) with the members of ``metadata``. Same inputs, same bytes."""
    buffer = io.BytesIO()
    buffer.write(model)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        document = json.dumps(metadata.to_json(), ensure_ascii=False, separators=(",", ":"))
        archive.writestr(_member(METADATA_MEMBER), document)
        for head in metadata.heads:
            archive.writestr(_member(labels_member(head.head_name)), "".join(f"{label}\n" for label in head.labels))
    return buffer.getvalue()


def read_metadata(path: str) -> Metadata:
    """The members of the file at ``path``, checked against each other and against the length of the flatbuffer.

    Raises ``BundleError`` for anything that is not a whole polyhead file, and ``OSError`` where it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(8)
        if head[4:8] != IDENTIFIER:
            raise BundleError(f"{path}: expected a .tflite file, found something else ({head[:8]!r})")
        try:
            with zipfile.ZipFile(file) as archive:
                metadata = _read_members(archive)
                start = min(info.header_offset for info in archive.infolist())
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise BundleError(
                f"{path}: no readable members ({error}): not made by polyhead, or cut short; {REBUILD}"
            ) from error
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
    if start != metadata.model_bytes:
        raise BundleError(f"{path}: expected a model of {metadata.model_bytes} bytes, found {start}; {REBUILD}")
    return metadata


def check_signatures(path: str, metadata: Metadata, signatures: Mapping[str, Mapping[str, Any]]) -> None:
    """Every head that the members promise has its signature, and no other is there. Raises ``BundleError``."""
    expected = {"serving_default", "backbone", *(head.head_name for head in metadata.heads)}
    if metadata.joint is not None:
        expected.add("joint")
    if set(signatures) != expected:
        missing, strange = sorted(expected - set(signatures)), sorted(set(signatures) - expected)
        raise BundleError(
            f"{path}: members and signatures disagree (missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(strange) or 'none'}); {REBUILD}"
        )


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # a date of today would change the bytes
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3
    return info


def _read_members(archive: zipfile.ZipFile) -> Metadata:
    names = archive.namelist()
    if len(names) > MAX_MEMBERS:
        raise BundleError(f"{len(names)} members, more than the {MAX_MEMBERS} that a polyhead file may have")
    if METADATA_MEMBER not in names:
        raise BundleError(f"no member {METADATA_MEMBER}: a .tflite file, but not made by polyhead")
    try:
        document = json.loads(_read(archive, METADATA_MEMBER).decode("utf-8"))
        labels = {
            os.path.basename(name)[: -len(".txt")]: tuple(_read(archive, name).decode("utf-8").split("\n")[:-1])
            for name in names
            if name.startswith("labels/") and name.endswith(".txt")
        }
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"a member is not what it should be ({error}); {REBUILD}") from error
    return Metadata.from_json(document, labels)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:  # the size in the header may lie: read no further than the limit
        data = member.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise BundleError(f"member {name} unpacks to more than {MAX_MEMBER_BYTES} bytes")
    return data
