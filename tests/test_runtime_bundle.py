"""A file that is not a complete polyhead file is refused in one line with its name."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_runtime import (
    BundleError,
    EdgeRuntimeError,
    InterpreterError,
    MultiHeadClassifier,
    PictureError,
    UnknownHeadError,
    bundle,
)
from edge_runtime.bundle import MAX_MEMBERS, MAX_UNPACKED_BYTES, METADATA_MEMBER, append_members, read_metadata
from edge_runtime.checked import field_of, positive
from edge_runtime.flatbuffer import Signature
from edge_runtime.image_input import ImageInput
from edge_runtime.metadata import RESERVED_NAMES, HeadInfo, Metadata, SeamTensor, check_head_name
from edge_runtime.opening import check_signatures
from edge_runtime.quantization import FLOAT
from tests.laws import joint_table, one_line
from tests.tiny_models import FEATURES, SIZE, THREE_HEADS, label_names

FAKE_MODEL = b"\x1c\0\0\0TFL3" + b"\0" * 200  # enough for what reads members, and no interpreter's
SEAM = (SeamTensor("features", (8,)),)
SMALL = Metadata(ImageInput(32, 32), "sha256:0", SEAM, (HeadInfo("cats", ("tabby", "lion")),), len(FAKE_MODEL))


@pytest.fixture(scope="session")
def whole(tiny_file: Path) -> bytes:
    return tiny_file.read_bytes()


@pytest.fixture(scope="session")
def metadata(tiny_file: Path) -> Metadata:
    return read_metadata(str(tiny_file))


@pytest.fixture(scope="session")
def model(whole: bytes, metadata: Metadata) -> bytes:
    """The flatbuffer alone."""
    return whole[: metadata.model_bytes]


def refusal(folder: Path, content: bytes, kind: type = BundleError) -> str:
    """Opening ``content`` is refused, with a message for a person; returns it."""
    path = folder / "file.tflite"
    path.write_bytes(content)
    with pytest.raises(kind) as caught:
        MultiHeadClassifier(path)
    message = str(caught.value)
    assert one_line(message, path)
    assert len(message) < len(str(path)) + 600
    return message


def with_members(model: bytes, members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    buffer.write(model)
    with zipfile.ZipFile(buffer, "a", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_members_say_what_was_built(metadata: Metadata, model: bytes, whole: bytes) -> None:
    assert {head.head_name: head.labels for head in metadata.heads} == {
        name: label_names(name, count) for name, count in THREE_HEADS.items()
    }
    assert (metadata.input.height, metadata.input.width, metadata.seam[0].shape) == (SIZE, SIZE, (FEATURES,))
    assert append_members(model, metadata) == whole


def test_members_come_back_as_they_went_in(tmp_path: Path) -> None:
    heads = (
        HeadInfo("a", ("é", "日本", " spaces ", "\U0001f99c")),
        HeadInfo("b1_", ("x",), "sigmoid", 7, title="\u2066감정\n"),
    )
    spec = ImageInput(17, 19, method="area", antialias=False, fit="pad")
    before = Metadata(
        spec,
        "digest",
        (SeamTensor("features", (3, 4, 5)),),
        heads,
        len(FAKE_MODEL),
        quality={"heads": {}},
        built={"n": 1},
    )
    path = tmp_path / "file.tflite"
    path.write_bytes(append_members(FAKE_MODEL, before))
    assert read_metadata(str(path)) == before


@pytest.mark.parametrize("title", [None, 3, ["a"], {}, True, "x" * 201])
def test_a_title_that_is_no_short_text(title: object) -> None:
    document = SMALL.to_json()
    assert "title" not in document["heads"][0]
    document["heads"][0]["title"] = "x" * 200
    assert Metadata.from_json(document).heads[0].title == "x" * 200
    document["heads"][0]["title"] = title
    with pytest.raises(BundleError, match="the title of cats as a text"):
        Metadata.from_json(document)


def test_whole_numbers_are_those_that_every_reader_of_json_holds() -> None:
    largest = 2**53 - 1
    for value in (-largest, 0, largest):
        assert field_of({"n": value}, "n", int) == value
    for value in (1, 2**24 - 1):
        assert positive(value, "n") == value
    for wrong in (-largest - 1, largest + 1, True, 1.0, "1", None):
        with pytest.raises(BundleError, match="expected 'n'"):
            field_of({"n": wrong}, "n", int)
    for wrong in (-1, 0, 2**24, True, 1.0, "1", None):
        with pytest.raises(BundleError, match="expected n as a positive number"):
            positive(wrong, "n")


def test_same_inputs_same_bytes() -> None:
    assert append_members(FAKE_MODEL, SMALL) == append_members(FAKE_MODEL, SMALL)
    assert append_members(FAKE_MODEL, SMALL).startswith(FAKE_MODEL)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"TFL3",
        b"\x1c\0\0\0",
        b"\0" * 100,
        b"\xff\xd8\xff\xe0 a jpeg",
        b"PK\3\4" + b"\0" * 60,
        b"version https://git-lfs",
    ],
    ids=repr,
)
def test_not_a_tflite(tmp_path: Path, content: bytes) -> None:
    assert "expected a .tflite file" in refusal(tmp_path, content)


def test_members_without_a_model(tmp_path: Path) -> None:
    refusal(tmp_path, append_members(b"", SMALL))


def test_a_tflite_that_is_not_ours(tmp_path: Path, model: bytes) -> None:
    assert "not made by polyhead" in refusal(tmp_path, model)
    assert "not made by polyhead" in refusal(tmp_path, with_members(model, {"labels.txt": "a\nb\n"}))
    assert "not made by polyhead" in refusal(tmp_path, with_members(model, {}))


@pytest.mark.parametrize("kept", [*(i / 12 for i in range(12)), 0.97, 0.99, 0.999])
def test_cut_short(tmp_path: Path, whole: bytes, kept: float) -> None:
    refusal(tmp_path, whole[: int(len(whole) * kept)])


@pytest.mark.parametrize("missing", [*range(1, 30), 50, 100, 200, 400])
def test_cut_short_by_a_few_bytes(tmp_path: Path, whole: bytes, missing: int) -> None:
    refusal(tmp_path, whole[:-missing])


@pytest.mark.parametrize("missing", [1, 100, 4096])
def test_model_cut_short_in_front_of_the_members(tmp_path: Path, model: bytes, metadata: Metadata, missing: int) -> None:
    assert "expected a model of" in refusal(tmp_path, append_members(model[:-missing], metadata))


@pytest.mark.parametrize("added", [b"\0", b"\n", b"\0" * 21, b"\0" * 22, b"garbage" * 100, b"x" * 70_000])
def test_something_added_at_the_end(tmp_path: Path, whole: bytes, added: bytes) -> None:
    refusal(tmp_path, whole + added)


def test_something_added_in_front(tmp_path: Path, whole: bytes) -> None:
    refusal(tmp_path, whole[:8] + whole)


def test_two_files_in_one(tmp_path: Path, whole: bytes) -> None:
    refusal(tmp_path, whole + whole)


def test_a_model_that_no_interpreter_takes(tmp_path: Path, model: bytes, metadata: Metadata) -> None:
    refused = refusal(tmp_path, append_members(model[:8] + b"\0" * (len(model) - 8), metadata))
    assert "not safe to run" in refused


@pytest.mark.parametrize("flip", [0x01, 0x80], ids=hex)
def test_a_damaged_model_reaches_no_interpreter(tmp_path: Path, whole: bytes, model: bytes, flip: int) -> None:
    for place in [8, len(model) - 1, *range(100, len(model), 97)]:
        damaged = bytearray(whole)
        damaged[place] ^= flip
        assert "the model is damaged" in refusal(tmp_path, bytes(damaged)), place


@pytest.mark.parametrize("checksum", [None, "0", 0.5, True], ids=repr)
def test_a_checksum_is_needed(tmp_path: Path, whole: bytes, model: bytes, checksum: object) -> None:
    members = members_of(whole)
    document = {**json.loads(members[METADATA_MEMBER]), "model_crc32": checksum}
    assert "'model_crc32'" in refusal(tmp_path, with_members(model, {**members, METADATA_MEMBER: json.dumps(document)}))


@pytest.mark.parametrize("name", [METADATA_MEMBER, *(f"labels/{head}.txt" for head in THREE_HEADS)])
@pytest.mark.parametrize("change", ["without", "empty", "binary", "short"])
def test_every_member_is_needed(tmp_path: Path, whole: bytes, model: bytes, name: str, change: str) -> None:
    members = members_of(whole)
    content = members.pop(name)
    if change != "without":
        members[name] = {"empty": b"", "binary": b"\xff\xfe\0", "short": content[:-1]}[change]
    assert name in refusal(tmp_path, with_members(model, members)) or change == "without"


@pytest.mark.parametrize("name", [METADATA_MEMBER, "labels/animals.txt", "labels/none.txt"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path: Path, whole: bytes, name: str) -> None:
    """The last would win, and another reader might take the first."""
    members, buffer = members_of(whole), io.BytesIO()
    buffer.write(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        for _ in range(1 if name in members else 2):
            archive.writestr(name, members.get(name, b""))
    assert "two members have one name" in refusal(tmp_path, buffer.getvalue())


def test_labels_in_a_folder_below_are_nobodys(tmp_path: Path, whole: bytes, metadata: Metadata) -> None:
    buffer = io.BytesIO()
    buffer.write(whole)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("labels/other/animals.txt", "x\ny\nz\n")
    path = tmp_path / "file.tflite"
    path.write_bytes(buffer.getvalue())
    assert read_metadata(str(path)) == metadata


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_packed_otherwise(tmp_path: Path, whole: bytes, model: bytes, method: int) -> None:
    assert "packed" in refusal(tmp_path, with_members(model, members_of(whole), method))


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> int:
    """The limit lowered, so that no test packs 32 MB; what was built fits into it."""
    monkeypatch.setattr("edge_runtime.bundle.MAX_UNPACKED_BYTES", 1 << 20)
    return 1 << 20


def test_the_limit_has_room_for_what_people_build() -> None:
    assert MAX_UNPACKED_BYTES > 200 * 1000 * 30  # heads, labels of each, bytes a label
    assert MAX_MEMBERS > 5000


def test_a_document_that_unpacks_too_large(tmp_path: Path, whole: bytes, model: bytes, little_room: int) -> None:
    content = with_members(model, {**members_of(whole), METADATA_MEMBER: b"\n" * (little_room + 1)})
    assert len(content) < 100_000
    assert f"more than {little_room} bytes" in refusal(tmp_path, content)


@pytest.mark.parametrize("over", [0, 1])
def test_all_members_together_unpack_to_no_more(little_room: int, over: int) -> None:
    """Where all are unpacked, as those of a signed file are."""
    half = little_room // 2
    content = with_members(FAKE_MODEL, {"a": b"\n" * half, "b": b"\n" * (half + over)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if over:
            with pytest.raises(BundleError, match="member b unpacks to more"):
                bundle.members_of(archive)
        else:
            assert sum(map(len, bundle.members_of(archive).values())) == little_room


def test_labels_are_compared_without_unpacking_them(tmp_path: Path, whole: bytes, model: bytes) -> None:
    """However large they would be: their length and checksum stand in the directory."""
    content = with_members(model, {**members_of(whole), "labels/animals.txt": b"\n" * (40 << 20)})
    assert "labels/animals.txt: expected the 3 labels of polyhead.json" in refusal(tmp_path, content)


@pytest.mark.parametrize("head", THREE_HEADS)
def test_labels_of_the_same_length_and_other_letters_are_not_those(
    tmp_path: Path, whole: bytes, model: bytes, head: str
) -> None:
    member = f"labels/{head}.txt"
    text = members_of(whole)[member]
    for other in (text.swapcase(), b"".join(text.splitlines(keepends=True)[::-1])):
        assert len(other) == len(text)
        content = with_members(model, {**members_of(whole), member: other})
        assert f"{member}: expected the" in refusal(tmp_path, content)


def test_too_many_members(tmp_path: Path, whole: bytes, model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {**members_of(whole), **{f"m{i}": "" for i in range(20)}}
    content = with_members(model, members)
    path = tmp_path / "as-many.tflite"
    path.write_bytes(content)
    monkeypatch.setattr("edge_runtime.bundle.MAX_MEMBERS", len(members))
    read_metadata(str(path))
    monkeypatch.setattr("edge_runtime.bundle.MAX_MEMBERS", len(members) - 1)
    assert f"more than the {len(members) - 1}" in refusal(tmp_path, content)


def signatures_of(metadata: Metadata, seam: Sequence[str]) -> dict[str, Signature]:
    """Those that a file with these members must have."""

    def one(inputs: Sequence[str], *outputs: str) -> Signature:
        return Signature(0, tuple(inputs), outputs, ())

    found = {head.head_name: one(seam, "scores") for head in metadata.heads}
    return {
        "serving_default": one(["image"], *found), "backbone": one(["image"], *seam), **found,
        "all": one(seam, "scores"), "joint": one(seam, "scores", "heads"),
    }  # fmt: skip


def test_what_a_signature_takes_and_gives_is_checked_before_it_runs() -> None:
    seam = ["features", "features_2"]
    metadata = replace(SMALL, seam=tuple(SeamTensor(name, (8,)) for name in seam), joint=joint_table(SMALL))
    whole = signatures_of(metadata, seam)
    for fits in (
        whole,
        {name: signature for name, signature in whole.items() if name != "all"},  # as of older builders
        {**whole, "cats": whole["cats"]._replace(inputs=("features_2",))},  # a head may read one of several
        {**whole, "joint": whole["joint"]._replace(inputs=("features",), outputs=("heads", "scores"))},
    ):
        check_signatures("file", metadata, fits)
    for name, change in (
        ("cats", {"inputs": ("image",)}), ("cats", {"inputs": ("features", "image")}), ("cats", {"inputs": ()}),
        ("cats", {"outputs": ("heads",)}), ("cats", {"outputs": ("scores", "heads")}),
        ("backbone", {"inputs": ("features",)}), ("backbone", {"outputs": ("features",)}),
        ("all", {"inputs": ("image",)}), ("all", {"outputs": ()}),
        ("joint", {"inputs": ("features_2",)}), ("joint", {"inputs": ("features", "image")}),
        ("joint", {"outputs": ("scores",)}),
    ):  # fmt: skip
        with pytest.raises(BundleError, match=f"signature {name} takes or gives something else"):
            check_signatures("file", metadata, {**whole, name: whole[name]._replace(**change)})


def other_heads(change: Callable[[tuple[HeadInfo, ...]], tuple[HeadInfo, ...]]) -> Callable[[Metadata], Metadata]:
    return lambda metadata: replace(metadata, heads=change(metadata.heads))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_heads(lambda h: (*h, HeadInfo("plants", ("a", "b")))), "missing: plants; unknown: none"),
        (other_heads(lambda h: h[:-1]), "missing: none; unknown: things"),
        (other_heads(lambda h: (replace(h[0], head_name="beasts"), *h[1:])), "missing: beasts; unknown: animals"),
        (lambda m: replace(m, joint=joint_table(m)), "missing: joint; unknown: none"),
    ],
    ids=["one more", "one less", "renamed", "joint"],
)
def test_members_and_signatures_disagree(
    tmp_path: Path, model: bytes, metadata: Metadata, change: Callable[[Metadata], Metadata], words: str
) -> None:
    assert words in refusal(tmp_path, append_members(model, change(metadata)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: replace(m, input=replace(m.input, height=2 * SIZE)), "image"),
        (lambda m: replace(m, input=replace(m.input, width=SIZE + 1)), "image"),
    ],
)
def test_members_and_tensors_disagree(
    tmp_path: Path, model: bytes, metadata: Metadata, change: Callable[[Metadata], Metadata], words: str
) -> None:
    """The interpreter would resize the model to a larger picture and answer."""
    assert f"members promise {words}" in refusal(tmp_path, append_members(model, change(metadata)))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: replace(t, shape=(FEATURES + 1,)),
        lambda t: replace(t, shape=(1, FEATURES)),
        lambda t: replace(t, quantization=FLOAT),
        lambda t: replace(t, quantization=t.quantization._replace(dtype="uint8")),
    ],
)
def test_features_that_are_not_what_the_members_promise(
    tmp_path: Path, model: bytes, metadata: Metadata, change: Callable[[SeamTensor], SeamTensor]
) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(append_members(model, replace(metadata, seam=(change(metadata.seam[0]),))))
    with MultiHeadClassifier(path) as classifier, pytest.raises(BundleError, match="backbone: members promise") as caught:
        classifier.features(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert one_line(str(caught.value), path)


@pytest.mark.parametrize("count", [1, 2, 4, 100])
def test_another_number_of_labels_than_scores(tmp_path: Path, model: bytes, metadata: Metadata, count: int) -> None:
    """Found when the head is first used: looking at 200 heads when a file is opened would cost more than running one."""
    animals = replace(metadata.heads[0], labels=label_names("animals", count))
    path = tmp_path / "file.tflite"
    path.write_bytes(append_members(model, replace(metadata, heads=(animals, *metadata.heads[1:]))))
    with MultiHeadClassifier(path) as classifier:
        features = classifier.features(np.zeros((SIZE, SIZE, 3), np.uint8))
        classifier.classify_features(features, heads=["garden"])
        for _ in range(2):
            with pytest.raises(BundleError, match="animals") as caught:
                classifier.classify_features(features, heads=["animals"])
            assert one_line(str(caught.value), path)


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(document))
    *way, last = place
    inner: Any = document
    for step in way:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return document


PLACES = [
    ("format_version",), ("model_bytes",), ("input",), ("input", "height"), ("input", "width"), ("input", "method"),
    ("input", "antialias"), ("input", "fit"), ("input", "kind"), ("input", "color"), ("backbone",),
    ("backbone", "digest"), ("backbone", "features"), ("backbone", "seam"), ("backbone", "seam", 0),
    ("backbone", "seam", 0, "name"), ("backbone", "seam", 0, "shape"), ("backbone", "seam", 0, "quantization"),
    ("backbone", "seam", 0, "quantization", "dtype"), ("backbone", "seam", 0, "quantization", "scale"),
    ("backbone", "seam", 0, "quantization", "zero_point"), ("scores",), ("scores", "quantization"),
    ("min_runtime",),
    ("heads",), ("heads", 0, "head_name"), ("heads", 0, "labels"),
    ("heads", 0, "activation"), ("heads", 0, "bytes"), ("quality",), ("quality", "heads"),
    ("quality", "heads", "garden", "agreement"), ("built",),
]  # fmt: skip
WRONG = [..., None, True, "", "1", -1, 1.5, float("nan"), float("inf"), [], [None], {}, {"a": 1}, "x\ny"]
FINE = {
    ("quality",): [{}, {"a": 1}], ("quality", "heads"): [..., {}], ("quality", "heads", "garden", "agreement"): [1.5],
    ("built",): [{}, {"a": 1}], ("backbone", "digest"): ["", "1", "x\ny"], ("heads", 0, "bytes"): [-1],
    ("input", "antialias"): [True], ("backbone", "seam", 0, "quantization", "scale"): [1.5],
    ("backbone", "seam", 0, "quantization", "zero_point"): [-1],
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda p: ".".join(map(str, p)))
def test_every_field_is_checked(tmp_path: Path, whole: bytes, model: bytes, place: tuple[Any, ...]) -> None:
    members = members_of(whole)
    document = json.loads(members[METADATA_MEMBER])
    for value in WRONG:
        if any(type(value) is type(fine) and value == fine for fine in FINE.get(place, [])):
            continue
        members[METADATA_MEMBER] = json.dumps(changed(document, place, value)).encode()
        refusal(tmp_path, with_members(model, members))


@pytest.mark.parametrize("version", [0, 2, 1.0, "1", True])
def test_another_format_version(tmp_path: Path, whole: bytes, model: bytes, version: Any) -> None:
    members = members_of(whole)
    document = {**json.loads(members[METADATA_MEMBER]), "format_version": version}
    message = refusal(tmp_path, with_members(model, {**members, METADATA_MEMBER: json.dumps(document)}))
    assert "format_version" in message
    if version == 2:
        assert "expected format_version 1, found 2" in message


@pytest.mark.parametrize(
    "text",
    ["null", "[]", "3", '"x"', "{", "{}{}", "[" * 100_000, '{"format_version": ' + "1" * 5000 + "}", "NaN", "\ufeff{}"],
    ids=lambda text: text[:20],
)
def test_not_the_document(tmp_path: Path, whole: bytes, model: bytes, text: str) -> None:
    refusal(tmp_path, with_members(model, {**members_of(whole), METADATA_MEMBER: text}))


@pytest.mark.parametrize(
    "name", [*RESERVED_NAMES, "", "Cats", "1cat", "_cat", "cat-s", "cats ", "cats\n", "katzé", "a/b", "../x"]
)
def test_head_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="head name"):
        check_head_name(name)
    refusal(tmp_path, append_members(FAKE_MODEL, replace(SMALL, heads=(HeadInfo(name, ("a", "b")),))))


@pytest.mark.parametrize("name", ["a", "cats", "c2", "a_b_", "backbones", "joint2"])
def test_head_names_that_can_be(name: str) -> None:
    check_head_name(name)


def test_two_heads_of_one_name(tmp_path: Path) -> None:
    document = SMALL.to_json()
    document["heads"] *= 2
    members = {METADATA_MEMBER: json.dumps(document), "labels/cats.txt": "tabby\nlion\n"}
    assert "names of their own" in refusal(tmp_path, with_members(FAKE_MODEL, members))


def test_a_head_without_labels(tmp_path: Path) -> None:
    document = changed(SMALL.to_json(), ("heads", 0, "labels"), [])
    for members in ({}, {"labels/cats.txt": ""}):
        refusal(tmp_path, with_members(FAKE_MODEL, {METADATA_MEMBER: json.dumps(document), **members}))


def test_figures_that_are_no_numbers_read_as_null(tmp_path: Path) -> None:
    """What is printed from them must be JSON again."""
    built = {"a": float("nan"), "b": float("-inf"), "c": 1.5}
    text = json.dumps({**SMALL.to_json(), "model_crc32": zlib.crc32(FAKE_MODEL), "built": built})
    path = tmp_path / "file.tflite"
    path.write_bytes(
        with_members(FAKE_MODEL, {METADATA_MEMBER: text.replace("1.5", "1e999"), "labels/cats.txt": "tabby\nlion\n"})
    )
    assert read_metadata(str(path)).built == {"a": None, "b": None, "c": None}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["heads", "labels", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(place=st.sampled_from(PLACES[:24]), value=JSON)
@example(place=("heads",), value=[None])
@example(place=("backbone", "features"), value=[2**70])
def test_no_document_raises_anything_else(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    document = changed(SMALL.to_json(), place, value)
    path = tmp_path_factory.getbasetemp() / "mutated.tflite"
    path.write_bytes(
        with_members(FAKE_MODEL, {METADATA_MEMBER: json.dumps(document), "labels/cats.txt": "tabby\nlion\n"})
    )
    try:
        found = read_metadata(str(path))
    except BundleError as error:
        assert one_line(str(error), path)
    else:
        json.dumps(found.to_json(), allow_nan=False)
        assert isinstance(found, Metadata)


def read_or_refuse(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        found = read_metadata(str(path))
    except BundleError as error:
        assert one_line(str(error), path)
    else:
        assert found.heads == SMALL.heads  # names and times may be damaged; what is packed has a checksum


@pytest.mark.parametrize("flip", [0x01, 0x08, 0x80, 0xFF], ids=hex)
def test_no_damaged_byte_raises_anything_else(tmp_path: Path, flip: int) -> None:
    """zipfile has an error of its own, and raises half a dozen others besides."""
    content = append_members(FAKE_MODEL, SMALL)
    for place in range(len(FAKE_MODEL), len(content)):
        damaged = bytearray(content)
        damaged[place] ^= flip
        read_or_refuse(tmp_path / "damaged.tflite", bytes(damaged))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_to_the_members_raises_anything_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(append_members(FAKE_MODEL, SMALL))
    for _ in range(data.draw(st.integers(2, 4))):
        content[data.draw(st.integers(len(FAKE_MODEL), len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(len(FAKE_MODEL), len(content)))
    read_or_refuse(tmp_path / "damaged.tflite", bytes(content[:end]))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "none.tflite", tmp_path):
        with pytest.raises(OSError, match=str(path)):
            MultiHeadClassifier(path)


def test_errors_are_one_family_with_builtin_relatives() -> None:
    family = {
        BundleError: ValueError,
        PictureError: ValueError,
        UnknownHeadError: LookupError,
        InterpreterError: RuntimeError,
    }
    for error, builtin in family.items():
        assert issubclass(error, EdgeRuntimeError)
        assert issubclass(error, builtin)
