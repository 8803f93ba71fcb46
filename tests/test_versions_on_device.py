"""Identity, installation and rollback of files on a device."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edge_runtime
from edge_runtime.bundle import append_members, read_metadata
from edge_runtime.camera.metrics import metrics_text
from edge_runtime.errors import BundleError
from edge_runtime.identity import Identity, file_digest
from tests.test_runtime_cli import refused, run


def named(file: Path, path: Path, **fields: object) -> Path:
    """A copy of ``file`` with an identity."""
    metadata = read_metadata(str(file))
    model = file.read_bytes()[: metadata.model_bytes]
    path.write_bytes(append_members(model, replace(metadata, identity=Identity(**fields))))  # type: ignore[arg-type]
    return path


texts = st.text(max_size=200)


@given(
    identity=st.builds(
        Identity, texts, texts, texts, texts, texts, texts, st.dictionaries(st.sampled_from(["a", "b"]), texts)
    )
)
def test_what_was_given_is_read_again(identity: Identity) -> None:
    assert Identity.from_json(json.loads(json.dumps(identity.to_json()))) == identity


@pytest.mark.parametrize(
    "document", [[], "x", {"name": 3}, {"version": None}, {"name": "x" * 201}, {"sources": []}, {"sources": {"a": 1}}]
)
def test_what_is_no_identity_is_refused(document: object) -> None:
    with pytest.raises(BundleError, match="identity"):
        Identity.from_json(document)


def test_info_shows_the_identity(tiny_file: Path, tmp_path: Path) -> None:
    path = named(tiny_file, tmp_path / "file.tflite", name="doors", version="3", built_at="2026-11-27", author="me")
    found = json.loads(run("info", path, "--json").stdout)["identity"]
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == {"name": "doors", "version": "3", "built_at": "2026-11-27", "author": "me", "digest": digest}
    assert f"doors 3 ({digest[:19]}), built 2026-11-27, by me" in run("info", path).stdout
    assert "file (sha256:" in run("info", named(tiny_file, tmp_path / "file.tflite")).stdout
    link = tmp_path / "link.tflite"
    link.symlink_to(tmp_path / "file.tflite")
    assert "file (sha256:" in run("info", link).stdout


def test_the_version_of_the_command() -> None:
    assert run("--version").stdout.strip().endswith(edge_runtime.__version__)


def test_a_maker_names_a_file_and_the_model_stays(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.tflite"
    assert run("identify", tiny_file, "-o", path, "--name", "doors", "--version", "1").exit_code == 0
    assert "doors 2 (" in run("identify", path, "--version", "2", "--author", "me").stdout
    before, after = read_metadata(str(tiny_file)), read_metadata(str(path))
    assert after == replace(before, identity=replace(before.identity, name="doors", version="2", author="me"))
    assert path.read_bytes()[: after.model_bytes] == tiny_file.read_bytes()[: before.model_bytes]
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_named_stays_as_it_is(tiny_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.tflite"
    path.write_bytes(tiny_file.read_bytes())
    refused(run("identify", path), "--name")
    refused(run("identify", path, "--name", "x" * 201), "200 characters")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.txt", "of somebody else")
    before = path.read_bytes()
    refused(run("identify", path, "--name", "x"), "extra.txt")
    assert path.read_bytes() == before


def test_installing_keeps_what_was_there_and_rolling_back_is_a_swap(tiny_file: Path, tmp_path: Path) -> None:
    first, second = (named(tiny_file, tmp_path / f"{n}.tflite", name="doors", version=n) for n in ("1", "2"))
    place = tmp_path / "device" / "model.tflite"
    place.parent.mkdir()
    refused(run("rollback", tiny_file), "no", "to go back to")
    assert run("install", first, place).exit_code == 0
    refused(run("rollback", place), "install NEW")
    assert "doors 2" in run("install", second, place).stdout
    for expected in (first, second, first):
        assert run("rollback", place).exit_code == 0
        assert place.read_bytes() == expected.read_bytes()
    assert sorted(p.name for p in place.parent.iterdir()) == ["model.tflite", "model.tflite.previous"]


def test_what_is_no_file_of_ours_takes_no_place(tiny_file: Path, tmp_path: Path) -> None:
    place, bad = tmp_path / "model.tflite", tmp_path / "bad.tflite"
    place.write_bytes(tiny_file.read_bytes())
    bad.write_bytes(tiny_file.read_bytes()[:-9])
    refused(run("install", bad, place), bad)
    (tmp_path / "model.tflite.previous").write_bytes(bad.read_bytes())
    refused(run("rollback", place), "model.tflite.previous")
    assert place.read_bytes() == tiny_file.read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


def test_the_difference_of_two_files(tiny_file: Path, tmp_path: Path) -> None:
    old = named(tiny_file, tmp_path / "old.tflite", name="doors", version="1", sources={"animals": "sha256:1"})
    metadata = read_metadata(str(tiny_file))
    animals, garden, things = metadata.heads
    heads = (replace(animals, labels=("x", *animals.labels[1:])), garden, replace(things, head_name="stuff"))
    new = tmp_path / "new.tflite"
    changed = replace(metadata, heads=heads, identity=Identity("doors", "2", sources={"animals": "sha256:2"}))
    new.write_bytes(append_members(tiny_file.read_bytes()[: metadata.model_bytes], changed))
    found = json.loads(run("diff", old, new, "--json").stdout)
    assert (found["old"]["version"], found["new"]["version"]) == ("1", "2")
    assert (found["added"], found["removed"], found["same_backbone"]) == (["stuff"], ["things"], True)
    assert list(found["changed"]) == ["animals"]
    assert list(found["changed"]["animals"]) == ["labels"]
    assert set(found["identity"]) == {"version", "sources"}
    text = run("diff", old, new).stdout
    assert all(word in text for word in ("doors 1", "doors 2", "added: stuff", "removed: things", "animals: labels"))


def test_a_file_does_not_differ_from_itself(tiny_file: Path) -> None:
    document = json.loads(run("diff", tiny_file, tiny_file, "--json").stdout)
    assert not (document["added"] or document["removed"] or document["changed"])
    assert not {"input", "joint", "identity", "built", "min_runtime", "scores"} & set(document)
    assert len(run("diff", tiny_file, tiny_file).stdout.splitlines()) == 3


def test_a_digest_is_that_of_all_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"x" * (1 << 20), b"x" * ((1 << 20) + 1)):
        path.write_bytes(content)
        assert file_digest(str(path)) == "sha256:" + hashlib.sha256(content).hexdigest()


@given(name=st.text(max_size=30))
def test_metrics_hold_a_name_of_any_kind_in_one_line(name: str) -> None:
    text = metrics_text({"identity": {"name": name, "version": None, "digest": "d"}, "answered": 3, "temperature": None})
    lines = text.decode().removesuffix("\n").split("\n")
    assert len(lines) == 4
    assert lines[1].endswith('",version="",digest="d"} 1')
    assert lines[3] == "edge_runtime_frames_answered_total 3"
