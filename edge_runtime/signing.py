"""Signed files: with the public key of the maker, a device can check that a file is unchanged.

The member ``polyhead.sig`` is JSON: ``signed`` has the SHA-256 of the flatbuffer and of each other member, by its name;
``signature`` is the Ed25519 signature of ``signed`` as canonical JSON, and ``key`` the public key that it belongs to,
both in hexadecimal.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Callable, Dict, Mapping, NoReturn

from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.files import read_file

SIGNATURE_MEMBER = "polyhead.sig"
FORMAT = 1
INSTALL = "pip install 'polyhead[sign]'"
MAX_KEY_BYTES = 1 << 16
_PURPOSE = b"polyhead file signature\0"  # a key that also signs something else signs no file by it
_MODEL = "model"


def signature_member(model: bytes, members: Mapping[str, bytes], key: str, sign: Callable[[bytes], bytes]) -> bytes:
    """The content of ``polyhead.sig`` for a file.

    Args:
        model: The flatbuffer.
        members: All other members, by their names.
        key: The public key, in hexadecimal.
        sign: The signature of a message.
    """
    signed = _digests(model, members)
    document = {"key": key, "signature": sign(_message(signed)).hex(), "signed": signed}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def check_signature(model: bytes, members: Mapping[str, bytes], key_file: str) -> None:
    """Were ``model`` and ``members`` signed by the holder of the key in ``key_file``, a public key as PEM?

    Raises ``BundleError`` where they were not, and ``EdgeRuntimeError`` or ``OSError`` for a key that cannot be used.
    """
    key, own = _public_key(key_file), {name: data for name, data in members.items() if name != SIGNATURE_MEMBER}
    if SIGNATURE_MEMBER not in members:
        raise BundleError(f"not signed, and only files signed with {key_file} are trusted; sign it: builder sign")
    document = _document(members[SIGNATURE_MEMBER])
    signed = document["signed"]
    if not _is_valid(key, document["signature"], _message(signed)):
        if document["key"] != key_text(key):
            raise BundleError(
                f"signed with another key ({document['key'][:16]}...) than {key_file} ({key_text(key)[:16]}...)"
            )
        _changed("its signature does not belong to it")
    found = _digests(model, own)
    for name in sorted({*signed, *found}):
        if name not in signed:
            _changed(f"{name} was added")
        if name not in found:
            _changed(f"{name} is missing")
        if signed[name] != found[name]:
            _changed(f"{name} is another")


def key_text(key: Any) -> str:
    """A public key in hexadecimal."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    raw: bytes = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return raw.hex()


def need_cryptography() -> None:
    """Raises ``EdgeRuntimeError`` where the package is not installed."""
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise EdgeRuntimeError(f"signatures need the package cryptography ({error}); {INSTALL}") from error


def _public_key(path: str) -> Any:
    need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    wanted = f"{path}: expected an Ed25519 public key (openssl pkey -in KEY -pubout)"
    data = read_file(path, MAX_KEY_BYTES)
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        found = "a private key" if b"PRIVATE KEY" in data else "something else"
        raise EdgeRuntimeError(f"{wanted}, found {found}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise EdgeRuntimeError(f"{wanted}, found a key of another kind")
    return key


def _is_valid(key: Any, signature: str, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _digests(model: bytes, members: Mapping[str, bytes]) -> Dict[str, Any]:
    found: Dict[str, Any] = {f"member {name}": hashlib.sha256(data).hexdigest() for name, data in members.items()}
    return {"format": FORMAT, _MODEL: hashlib.sha256(model).hexdigest(), **found}


def _message(signed: Mapping[str, Any]) -> bytes:
    return _PURPOSE + json.dumps(signed, sort_keys=True, separators=(",", ":")).encode("ascii")


def _document(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        _changed(f"{SIGNATURE_MEMBER} cannot be read")
    for field, kind in (("key", str), ("signature", str), ("signed", dict)):
        if not isinstance(document.get(field), kind):
            _changed(f"{SIGNATURE_MEMBER} cannot be read")
    return document


def _changed(what: str) -> NoReturn:
    raise BundleError(f"changed after it was signed: {what}; get it from its maker again, or sign it again: builder sign")
