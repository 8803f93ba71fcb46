"""A device with the maker's key opens only files that the maker signed and nobody changed."""

from __future__ import annotations

import builtins
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from PIL import Image

from builder.commands.cli import main as builder
from edge_runtime import BundleError, MultiHeadClassifier
from edge_runtime.bundle import append_files, members_of, read_head_pack, read_metadata, read_model
from edge_runtime.camera.reload import open_copy
from edge_runtime.cli import main as device
from edge_runtime.signing import SIGNATURE_MEMBER
from tests.laws import one_line
from tests.test_runtime_cli import refused, run

Members = dict[str, bytes]


def write_keys(folder: Path, name: str, key: Any = None, password: bytes | None = None) -> tuple[Path, Path]:
    """The private key, for its owner alone, and the public key."""
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    private.touch(0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def sign(file: Path, key: Path, output: Path) -> Result:
    return CliRunner().invoke(builder, ["sign", str(file), "--key", str(key), "--output", str(output)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signing")


@pytest.fixture(scope="module")
def keys(folder: Path) -> tuple[Path, Path]:
    return write_keys(folder, "maker")


@pytest.fixture(scope="module")
def signed(tiny_file: Path, folder: Path, keys: tuple[Path, Path]) -> Path:
    path = folder / "signed.tflite"
    done = sign(tiny_file, keys[0], path)
    assert done.exit_code == 0, done.output
    return path


def parts(path: Path) -> tuple[bytes, Members]:
    with zipfile.ZipFile(path) as archive:
        return read_model(str(path))[1], members_of(archive)


def test_model_and_members_stay_and_everyone_opens_it(signed: Path, tiny_file: Path, keys: tuple[Path, Path]) -> None:
    model, members = parts(signed)
    assert (model, {**members, SIGNATURE_MEMBER: b""}) == (
        parts(tiny_file)[0],
        {**parts(tiny_file)[1], SIGNATURE_MEMBER: b""},
    )
    assert read_metadata(str(signed)) == read_metadata(str(tiny_file))
    for key in (None, keys[1]):
        with MultiHeadClassifier(signed, trusted_key=key) as opened:
            assert opened.head_names == tuple(head.head_name for head in read_metadata(str(tiny_file)).heads)
            opened.classify(np.zeros((32, 32, 3), np.uint8))


def test_signing_again_replaces_the_signature(signed: Path, tiny_file: Path, folder: Path, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, "other")
    again = tmp_path / "again.tflite"
    assert sign(signed, private, again).exit_code == 0
    assert sign(tiny_file, private, tmp_path / "once.tflite").exit_code == 0
    assert again.read_bytes() == (tmp_path / "once.tflite").read_bytes(), "same inputs, same bytes"
    read_model(str(again), str(public))


def another_head(model: bytes, members: Members) -> tuple[bytes, Members]:
    document = json.loads(members["polyhead.json"])
    document["quality"] = {}
    return model, {**members, "polyhead.json": json.dumps(document).encode()}


def changed_signature(field: str, value: Any) -> Callable[[bytes, Members], tuple[bytes, Members]]:
    def change(model: bytes, members: Members) -> tuple[bytes, Members]:
        document = {**json.loads(members[SIGNATURE_MEMBER]), field: value}
        return model, {**members, SIGNATURE_MEMBER: json.dumps(document).encode()}

    return change


def table_of_what_is_there(model: bytes, members: Members) -> tuple[bytes, Members]:
    """Somebody changes a member and the table of digests with it."""
    import hashlib

    model, members = another_head(model, members)
    document = json.loads(members[SIGNATURE_MEMBER])
    document["signed"]["member polyhead.json"] = hashlib.sha256(members["polyhead.json"]).hexdigest()
    return model, {**members, SIGNATURE_MEMBER: json.dumps(document).encode()}


CHANGES: dict[str, tuple[Callable[[bytes, Members], tuple[bytes, Members]], str]] = {
    "no signature": (lambda m, f: (m, {k: v for k, v in f.items() if k != SIGNATURE_MEMBER}), "not signed"),
    "a member added": (lambda m, f: (m, {"more.txt": b"x", **f}), "member more.txt was added"),
    "a member behind it": (lambda m, f: (m, {**f, "more.txt": b""}), "member more.txt was added"),
    "a member changed": (another_head, "member polyhead.json is another"),
    "the table too": (table_of_what_is_there, "its signature does not belong to it"),
    "half a signature": (changed_signature("signature", "00ff"), "its signature does not belong to it"),
    "no hexadecimal": (changed_signature("signature", "zz"), "its signature does not belong to it"),
    "another key named": (changed_signature("key", "00" * 32), "is another|was added|signed"),
    "no table": (changed_signature("signed", None), "polyhead.sig cannot be read"),
    "no text": (lambda m, f: (m, {**f, SIGNATURE_MEMBER: b"\xff"}), "polyhead.sig cannot be read"),
    "no document": (lambda m, f: (m, {**f, SIGNATURE_MEMBER: b"[]"}), "polyhead.sig cannot be read"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_not_as_it_was_signed_is_refused(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    change, words = CHANGES[kind]
    path = tmp_path / "file.tflite"
    path.write_bytes(append_files(*change(*parts(signed))))
    if kind == "another key named":  # what is said beside the signature proves nothing, and breaks nothing
        read_model(str(path), str(keys[1]))
        return
    for opening in (
        lambda: MultiHeadClassifier(path, trusted_key=keys[1]),
        lambda: open_copy(str(path), trusted_key=str(keys[1])),
    ):
        with pytest.raises(BundleError, match=words) as caught:
            opening()
        assert one_line(str(caught.value), path)
    refused(run("install", path, tmp_path / "there.tflite", "--trusted-key", keys[1]), str(path))
    assert not (tmp_path / "there.tflite").exists()


def test_the_signature_of_another_file_is_none(signed: Path, keys: tuple[Path, Path], joint: Any, tmp_path: Path) -> None:
    model, members = parts(joint.output)
    path = tmp_path / "file.tflite"
    path.write_bytes(append_files(model, {**members, SIGNATURE_MEMBER: parts(signed)[1][SIGNATURE_MEMBER]}))
    with pytest.raises(BundleError, match="changed after it was signed"):
        MultiHeadClassifier(path, trusted_key=keys[1])


@pytest.mark.parametrize("kept", [0.5, 0.99, 0.999])
def test_a_file_that_was_cut_short_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path, kept: float) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(signed.read_bytes()[: int(signed.stat().st_size * kept)])
    with pytest.raises(BundleError):
        MultiHeadClassifier(path, trusted_key=keys[1])


def test_a_changed_byte_of_the_model_is_refused(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The checksum with it, as somebody would who knows the format."""
    import zlib

    model, members = parts(signed)
    changed = bytearray(model)
    place = model.index(b"polyhead: ")
    changed[place] ^= 1
    document = {**json.loads(members["polyhead.json"]), "model_crc32": zlib.crc32(bytes(changed))}
    path = tmp_path / "file.tflite"
    path.write_bytes(append_files(bytes(changed), {**members, "polyhead.json": json.dumps(document).encode()}))
    MultiHeadClassifier(path).close()
    with pytest.raises(BundleError, match="changed after it was signed"):
        MultiHeadClassifier(path, trusted_key=keys[1])


def test_a_file_that_another_signed_is_refused(signed: Path, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path, "other")
    refused(run("info", signed, "--trusted-key", public), str(signed), "signed with another key", str(public))


OPENING = sorted(set(device.commands) - {"identify", "diff"})  # which run nothing: the maker's, and a comparison


@pytest.mark.parametrize("command", OPENING)
def test_every_command_that_opens_a_file_can_be_told_whom_to_trust(
    command: str, tiny_file: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """This includes the file kept by an earlier install. Afterwards nothing has taken its place."""
    path, sample = tmp_path / "file.tflite", tmp_path / "sample.png"
    for copy in (path, tmp_path / "file.tflite.previous", tmp_path / "new.tflite"):
        copy.write_bytes(tiny_file.read_bytes())
    Image.new("RGB", (40, 30)).save(sample)
    before = {item.name: item.stat().st_mtime_ns for item in tmp_path.iterdir()}
    more: dict[str, list[Any]] = {
        "install": [path],
        "classify": [sample],
        "features": [sample, "--output", tmp_path / "features.npz"],
        "classify-text": ["a text"],
        "camera": ["--source", tmp_path],
    }
    first = tmp_path / "new.tflite" if command == "install" else path
    refused(run(command, first, *more.get(command, []), "--trusted-key", keys[1]), "not signed")
    assert {item.name: item.stat().st_mtime_ns for item in tmp_path.iterdir()} == before


def test_measuring_may_be_tried_in_a_process_of_its_own_first(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr("edge_runtime.isolate.try_in_child", lambda path, *_, **__: tried.append(str(path)))
    for more in ([], ["--profile"]):
        line = ["benchmark", signed, "--runs", 1, "--isolate", "--trusted-key", keys[1], *more]
        assert run(*line).exit_code == 0
    assert len(tried) == 2


def test_what_runs_is_what_was_checked(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """The file may be replaced after the check, because it is read once."""
    path = tmp_path / "file.tflite"
    path.write_bytes(signed.read_bytes())
    with MultiHeadClassifier(path, trusted_key=keys[1]) as opened:
        path.write_bytes(b"\0" * path.stat().st_size)
        opened.classify(np.zeros((32, 32, 3), np.uint8))


def test_packs_are_signed_too(joint: Any, keys: tuple[Path, Path], tmp_path: Path) -> None:
    from builder.exporting.export import export_split

    export_split(joint.output, tmp_path / "apart")
    main = next((tmp_path / "apart").glob("*.tflite"))
    packs = sorted((tmp_path / "apart").glob("*.heads/*.tflite"))
    assert sign(main, keys[0], main).exit_code == 0
    for pack in packs[1:]:
        done = sign(pack, keys[0], pack)
        assert done.exit_code == 0, done.output
    with pytest.raises(BundleError, match="not signed") as caught:
        MultiHeadClassifier(main, trusted_key=keys[1])
    assert str(packs[0]) in str(caught.value)
    assert sign(packs[0], keys[0], packs[0]).exit_code == 0
    with MultiHeadClassifier(main, trusted_key=keys[1]) as opened:
        assert len(opened.head_names) == len(packs)
    read_head_pack(str(packs[0]), str(keys[1]))


def test_a_change_drops_the_signature_and_says_so(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(signed.read_bytes())
    done = CliRunner().invoke(builder, ["rename-head", str(path), "animals=beasts"])
    assert done.exit_code == 0, done.output
    assert "the signature is dropped" in done.output
    assert SIGNATURE_MEMBER not in parts(path)[1]
    refused(run("info", path, "--trusted-key", keys[1]), "not signed")
    refused(run("identify", signed, "--name", "x", "-o", tmp_path / "o.tflite"), SIGNATURE_MEMBER)


def no_key(path: Path, content: bytes = b"hello") -> Path:
    path.touch(0o600)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: no_key(f / "k"), "expected an Ed25519 private key"),
        (lambda f: write_keys(f, "k", password=b"secret")[0], "found an encrypted one"),
        (lambda f: write_keys(f, "k", X25519PrivateKey.generate())[0], "found a key of another kind"),
        (lambda f: no_key(f / "p", write_keys(f, "k")[1].read_bytes()), "found a public key"),
        (lambda f: no_key(f / "big", b"x" * 100_000), "at most 65,536 bytes"),
    ],
)
def test_what_is_no_private_key_is_said(tiny_file: Path, tmp_path: Path, make: Any, words: str) -> None:
    key = make(tmp_path)
    done = sign(tiny_file, key, tmp_path / "out.tflite")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert words in done.output
    assert str(key) in done.output
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_private_key_that_others_may_read_is_refused(tiny_file: Path, tmp_path: Path, mode: int) -> None:
    private, _ = write_keys(tmp_path, "k")
    private.chmod(mode)
    done = sign(tiny_file, private, tmp_path / "out.tflite")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert f"mode {mode:o} lets others read this private key; chmod 600" in done.output


@pytest.mark.parametrize("which", ["private", "other", "text"])
def test_what_is_no_public_key_is_said(signed: Path, tmp_path: Path, which: str) -> None:
    keys = {"private": write_keys(tmp_path, "k")[0], "other": write_keys(tmp_path, "x", X25519PrivateKey.generate())[1]}
    key = keys.get(which) or no_key(tmp_path / "text")
    refused(run("info", signed, "--trusted-key", key), str(key), "expected an Ed25519 public key")


def test_without_the_package_it_says_what_to_install(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError("No module named 'cryptography'")
        return whole(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    refused(run("info", signed, "--trusted-key", keys[1]), "pip install 'polyhead[sign]'")
    assert run("info", signed).exit_code == 0
    assert "pip install 'polyhead[sign]'" in sign(signed, keys[0], signed).output
