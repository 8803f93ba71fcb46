"""The file: a TensorFlow Lite flatbuffer with zip members appended to it: ``polyhead.json``, ``labels/<head>.txt``, and
``vocabulary.json`` in a file that takes texts.

A head pack is the same for one head, its member ``polyhead-head.json``. Interpreters see the flatbuffer and ignore what
follows it; zip readers see the members and ignore what precedes them.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import struct
import zipfile
import zlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Type, TypeVar, Union

from edge_runtime.errors import BundleError, reason
from edge_runtime.files import open_file, read_file
from edge_runtime.flatbuffer import IDENTIFIER, Model, Views, check_model
from edge_runtime.joint import JointInfo
from edge_runtime.metadata import JOINT, HeadPack, Metadata
from edge_runtime.text import TextInput

METADATA_MEMBER = Metadata.MEMBER
VOCABULARY_MEMBER = "vocabulary.json"  # not one token a line: a token may hold a line break
PACK_FOLDER, PACK_SUFFIX = ".heads", ".tflite"  # of ``main.tflite`` the packs in ``main.heads/`` belong to it
MAX_UNPACKED_BYTES = 32 << 20  # a file is untrusted: what is read may not unpack to more
MAX_MEMBERS = 10_000
MAX_MODEL_BYTES = 1 << 30
_CHECKSUM = "model_crc32"  # in ``polyhead.json``, of the flatbuffer: interpreters crash on some that are damaged
_END_RECORD = b"PK\5\6"
_END_RECORD_BYTES = 22  # without a comment, as ``append_members`` writes it
# What zipfile raises on members that are damaged; it has no one error for that.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError)
REBUILD = "build it again, or copy it again"
_Members = TypeVar("_Members", Metadata, HeadPack)


def labels_member(head_name: str) -> str:
    """The name of the member with the labels of a head, or of the joint list."""
    return f"labels/{head_name}.txt"


def append_members(model: bytes, metadata: Union[Metadata, HeadPack]) -> bytes:
    """The finished file: ``model`` (the flatbuffer) with the members of ``metadata``. Equal inputs give equal bytes."""
    document = {**metadata.to_json(), _CHECKSUM: zlib.crc32(model)}
    files = {metadata.MEMBER: json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()}
    files.update((labels_member(name), labels_text(labels)) for name, labels in _labels(metadata).items())
    if isinstance(metadata, Metadata) and isinstance(metadata.input, TextInput):
        tokens = json.dumps(metadata.input.vocabulary, ensure_ascii=False, separators=(",", ":"))
        files[VOCABULARY_MEMBER] = tokens.encode()
    return append_files(model, files)


def append_files(model: bytes, files: Mapping[str, bytes], *, packed: bool = True) -> bytes:
    """``model`` with ``files`` as zip members. Equal inputs give equal bytes."""
    buffer = io.BytesIO()
    buffer.write(model)
    with zipfile.ZipFile(buffer, "a") as archive:
        for name, content in files.items():
            archive.writestr(_member(name, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED), content)
    return buffer.getvalue()


def read_metadata(path: str) -> Metadata:
    """Read the metadata of the file at ``path``, checked for consistency and against the bytes of the flatbuffer.

    Raises:
        BundleError: It is not a complete polyhead file.
        OSError: It cannot be read.
    """
    return _read(path, Metadata)[0]


def read_model(path: str, trusted_key: Optional[str] = None) -> Tuple[Metadata, bytes]:
    """The same and the flatbuffer, which an interpreter may be given: ``flatbuffer.check_model`` has seen it.

    ``trusted_key``: a file with a public key; see ``signing.check_signature``.
    """
    metadata, model = _read(path, Metadata, trusted_key)
    _checked(path, model)
    return metadata, model


def open_model(path: str, trusted_key: Optional[str] = None) -> Tuple[Metadata, Views]:
    """The same for what runs it, mapped into memory rather than read, unless it must be signed."""
    metadata, model = _read(path, Metadata, trusted_key, mapped=True)
    return metadata, Views(_checked(path, model))


def read_head_pack(path: str, trusted_key: Optional[str] = None) -> Tuple[HeadPack, bytes]:
    """``read_model`` for a head pack."""
    pack, model = _read(path, HeadPack, trusted_key)
    _checked(path, model)
    return pack, model


def packs_beside(path: str) -> List[str]:
    """The head packs in the folder that belongs to the file at ``path``, by their names."""
    folder = os.path.splitext(path)[0] + PACK_FOLDER
    if not os.path.isdir(folder):
        return []
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(PACK_SUFFIX)]


def _checked(path: str, model: Any) -> Model:
    try:
        return check_model(model)
    except BundleError as error:
        raise BundleError(f"{path}: not safe to run: {error}; {REBUILD}") from error


def members_of(archive: zipfile.ZipFile) -> Dict[str, bytes]:
    """Every member by its name, unpacked. Raises ``BundleError``."""
    found, room = {}, MAX_UNPACKED_BYTES
    for name in archive.namelist():
        found[name] = _read_bytes(archive, name, room)
        room -= len(found[name])
    return found


def _read(
    path: str, kind: Type[_Members], trusted_key: Optional[str] = None, *, mapped: bool = False
) -> Tuple[_Members, Any]:
    # Of a file that must be signed what is checked and what is read are the same bytes.
    with open_file(path) if trusted_key is None else io.BytesIO(read_file(path, MAX_MODEL_BYTES)) as file:
        head = file.read(8)
        if head[4:8] != IDENTIFIER:
            raise BundleError(f"{path}: expected a .tflite file, found something else ({head[:8]!r})")
        try:
            with zipfile.ZipFile(file) as archive:
                metadata, checksum = _read_members(archive, kind)
                members = None if trusted_key is None else members_of(archive)
                start = min(info.header_offset for info in archive.infolist())
            file.seek(-_END_RECORD_BYTES, io.SEEK_END)
            if file.read(len(_END_RECORD)) != _END_RECORD:
                raise BundleError(f"something was added after the end of the file; {REBUILD}")
            if start != metadata.model_bytes:
                raise BundleError(f"expected a model of {metadata.model_bytes} bytes, found {start}; {REBUILD}")
            if start > MAX_MODEL_BYTES:
                raise BundleError(f"a model of {start:,} bytes, more than the {MAX_MODEL_BYTES:,} that are opened")
            file.seek(0)
            # What was signed is run, whatever becomes of the file.
            mapped = mapped and trusted_key is None
            model: Any = mmap.mmap(file.fileno(), start, access=mmap.ACCESS_READ) if mapped else file.read(start)
            if zlib.crc32(model) != checksum:
                raise BundleError(f"the model is damaged: its checksum is not the one of {kind.MEMBER}; {REBUILD}")
            if trusted_key is not None and members is not None:
                _check_signature(model, members, trusted_key)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
        except _DAMAGE as error:
            raise BundleError(
                f"{path}: no readable members ({reason(error)}): not made by polyhead, or cut short; {REBUILD}"
            ) from error
    return metadata, model


def labels_text(labels: Sequence[str]) -> bytes:
    """What a labels member holds: a label a line."""
    return "\n".join([*labels, ""]).encode()


def _member(name: str, compress_type: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # a date of today would change the bytes
    info.compress_type = compress_type
    info.create_system = 3
    return info


def _read_members(archive: zipfile.ZipFile, kind: Type[_Members]) -> Tuple[_Members, int]:
    """The metadata, and the checksum that the flatbuffer must have."""
    names = archive.namelist()
    if len(names) > MAX_MEMBERS:
        raise BundleError(f"{len(names)} members, more than the {MAX_MEMBERS} that a polyhead file may have")
    if kind.MEMBER not in names:
        raise BundleError(_other_kind(kind, names))
    if len(set(names)) != len(names):
        raise BundleError(f"two members have one name; {REBUILD}")
    document = _read_json(archive, kind.MEMBER)
    vocabulary = _read_json(archive, VOCABULARY_MEMBER) if VOCABULARY_MEMBER in names else None
    try:
        metadata = kind.from_json(document, vocabulary)
    except BundleError as error:
        raise BundleError(f"{kind.MEMBER}: {error}") from error
    for name, labels in _labels(metadata).items():
        _check_labels(archive, name, labels, kind.MEMBER)
    checksum = document.get(_CHECKSUM)
    if not isinstance(checksum, int) or isinstance(checksum, bool):
        raise BundleError(f"{kind.MEMBER}: expected {_CHECKSUM!r} as int, found {checksum!r:.60}; build it again")
    return metadata, checksum


def _other_kind(kind: Type[_Members], names: Sequence[str]) -> str:
    if HeadPack.MEMBER in names:
        return "a head pack; give it as one beside the file with its backbone (--head-pack, or a folder FILE.heads)"
    if METADATA_MEMBER in names:
        return "expected a head pack, found a file with a backbone of its own"
    return f"no member {kind.MEMBER}: a .tflite file, but not made by polyhead"


def _read_json(archive: zipfile.ZipFile, name: str) -> Any:
    try:
        return json.loads(_read_text(archive, name), parse_constant=_finite, parse_float=_finite)
    except BundleError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more digits than Python reads
        raise BundleError(f"{name} is not a JSON document ({error}); {REBUILD}") from error


def _labels(metadata: Union[Metadata, HeadPack]) -> Dict[str, Sequence[str]]:
    """Labels by the name of their head, those of the joint list last. Raises ``BundleError``."""
    if isinstance(metadata, HeadPack):
        return {metadata.head.head_name: metadata.head.labels}
    found: Dict[str, Sequence[str]] = {head.head_name: head.labels for head in metadata.heads}
    if metadata.joint is not None:
        found[JOINT] = JointInfo.from_json(metadata.joint, list(found)).labels
    return found


def _check_labels(archive: zipfile.ZipFile, head_name: str, labels: Sequence[str], document: str) -> None:
    """Other tools read the labels from their own member: it must hold those of ``document``.

    The directory's length and checksum tell; opening 200 members would cost more than opening the interpreter.
    """
    name, text = labels_member(head_name), labels_text(labels)
    info = archive.NameToInfo.get(name)
    if info is None or (info.file_size, info.CRC) != (len(text), zlib.crc32(text)):
        found = "something else" if info else "no such member"
        raise BundleError(f"{name}: expected the {len(labels)} labels of {document}, found {found}; {REBUILD}")


def _check_signature(model: bytes, members: Mapping[str, bytes], trusted_key: str) -> None:
    from edge_runtime.signing import check_signature  # few files are signed

    check_signature(model, members, trusted_key)


def _read_text(archive: zipfile.ZipFile, name: str) -> str:
    try:
        return _read_bytes(archive, name, MAX_UNPACKED_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"member {name} is not UTF-8 text ({error}); {REBUILD}") from error


def _read_bytes(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"member {name} is packed in a way that no polyhead file is; {REBUILD}")
    with archive.open(name) as member:  # the size in the header may lie: read no further than the limit
        data = member.read(most + 1)
    if len(data) > most:
        raise BundleError(f"member {name} unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    return data


def _finite(number: str) -> Optional[float]:
    """NaN and the infinities are not JSON: null stands for them, which the checks of every field that matters refuse."""
    value = float(number)
    return value if math.isfinite(value) else None
