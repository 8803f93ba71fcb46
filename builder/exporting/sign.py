"""Sign a finished file or a head pack; see ``edge_runtime.signing``."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from builder.support.errors import ConfigError
from builder.support.files import locked
from edge_runtime.bundle import append_files, members_of, read_head_pack, read_model
from edge_runtime.files import open_file, read_file
from edge_runtime.metadata import HeadPack
from edge_runtime.signing import MAX_KEY_BYTES, SIGNATURE_MEMBER, key_text, need_cryptography, signature_member

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def sign(file: Path, key_file: Path, output: Path) -> str:
    """Write ``file`` with a signature, which replaces an existing one; model and members are unchanged.

    Args:
        file: A file with heads, or a head pack; it is checked first.
        key_file: An Ed25519 private key as PEM, without a password, that only its owner may read.
        output: Where the signed file goes.

    Returns:
        The public key, in hexadecimal.

    Raises:
        ConfigError: The key cannot be used.
        EdgeRuntimeError: ``file`` is not a complete polyhead file, or cryptography is not installed.
        OSError: A file cannot be read or written.
    """
    key = _private_key(key_file)
    public = key_text(key.public_key())
    with locked(output) as place, place.draft(was_read=True) as draft:
        pack = HeadPack.MEMBER in _names(file)
        model = (read_head_pack if pack else read_model)(str(file))[1]
        with open_file(file) as stream, zipfile.ZipFile(stream) as archive:
            members = members_of(archive)
        members.pop(SIGNATURE_MEMBER, None)
        signature = signature_member(model, members, public, key.sign)
        draft.write_bytes(append_files(model, {**members, SIGNATURE_MEMBER: signature}))
    return public


def is_signed(file: Path) -> bool:
    """Whether the finished file has a signature, by any key."""
    return SIGNATURE_MEMBER in _names(file)


def _names(file: Path) -> list[str]:
    try:
        with open_file(file) as stream, zipfile.ZipFile(stream) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []  # opening the file reports what is wrong


def _private_key(path: Path) -> Ed25519PrivateKey:
    need_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = read_file(path, MAX_KEY_BYTES)
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"{path}: mode {mode:o} lets others read this private key; chmod 600 {path}")
    wanted = f"{path}: expected an Ed25519 private key (openssl genpkey -algorithm ed25519)"
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError as error:  # cryptography raises it where a password is needed
        raise ConfigError(f"{wanted} without a password, found an encrypted one") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{wanted}, found {'a public key' if b'PUBLIC KEY' in data else 'something else'}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{wanted}, found a key of another kind")
    return key
