"""A file in a Beam pipeline answers as on the device, whatever the elements are."""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

beam = pytest.importorskip("apache_beam", reason="needs the extra `beam`; make test has an environment with it")
from apache_beam.io.localfilesystem import LocalFileSystem  # noqa: E402
from apache_beam.metrics import MetricsFilter  # noqa: E402
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference  # noqa: E402
from apache_beam.testing.util import assert_that  # noqa: E402
from PIL import Image  # noqa: E402

from edge_runtime import MultiHeadClassifier  # noqa: E402
from edge_runtime.beam import NAMESPACE, PolyheadModelHandler  # noqa: E402
from edge_runtime.errors import EdgeRuntimeError, UnknownHeadError  # noqa: E402
from tests.cluster.material import FOLDER, pictures  # noqa: E402

THREE, TEXT, JOINT = FOLDER / "three.tflite", FOLDER / "text.tflite", FOLDER / "joint.tflite"


class Shelf(LocalFileSystem):
    """``shelf:///path``: a store that is not this machine's file system, as far as Beam knows."""

    @classmethod
    def scheme(cls) -> str:
        return "shelf"

    def open(self, path: str, *options: object, **more: object) -> object:
        return super().open(path[len("shelf://") :], *options, **more)


def timeless(document: dict) -> dict:
    return {key: value for key, value in document.items() if key != "latency_ms"}


def device(file: Path, samples: list, **wanted: object) -> list[dict]:
    with MultiHeadClassifier(file, num_threads=1, head_packs=()) as opened:
        classify = opened.classify_text if opened.metadata.input.kind == "tokens" else opened.classify
        found = [classify(sample, **wanted).to_dict() for sample in samples]
    return [timeless(json.loads(json.dumps(document))) for document in found]


def answers(handler: PolyheadModelHandler, samples: list) -> tuple[list[dict], int]:
    """What ``RunInference`` gives for each sample, and how many samples it counts as unreadable."""
    with tempfile.TemporaryDirectory() as folder:
        place = f"{folder}/found"

        def keep(results: list) -> None:
            Path(place).write_bytes(pickle.dumps(sorted((i, json.dumps(one.inference)) for i, one in results)))

        pipeline = beam.Pipeline()
        assert_that(pipeline | beam.Create(list(enumerate(samples))) | RunInference(KeyedModelHandler(handler)), keep)
        result = pipeline.run()
        result.wait_until_finish()
        found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE).with_name("unreadable"))
        rows = pickle.loads(Path(place).read_bytes())  # noqa: S301 - written above
    return [timeless(json.loads(document)) for _, document in rows], sum(c.committed for c in found["counters"])


def test_pictures_as_paths_bytes_and_pixels_get_the_answers_of_the_device(tmp_path: Path) -> None:
    files = pictures(tmp_path, 3)
    samples = [str(files[0]), files[1].read_bytes(), np.asarray(Image.open(files[2]).convert("RGB"))]
    expected = device(THREE, [str(path) for path in files], top_k=2)
    assert answers(PolyheadModelHandler(str(THREE), top_k=2, max_batch_size=2), samples) == (expected, 0)


def test_texts_and_the_joint_list() -> None:
    texts = ["w1 w2 nothing", b"w3", "w2"]
    assert answers(PolyheadModelHandler(str(TEXT), heads=[1]), texts)[0] == device(TEXT, texts, heads=[1], top_k=1)
    noise = [np.random.default_rng(i).integers(0, 256, (24, 24, 3), np.uint8) for i in range(2)]
    assert answers(PolyheadModelHandler(str(JOINT), joint=True), noise)[0] == device(JOINT, noise, joint=True, top_k=1)


def test_what_cannot_be_read_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    (good,) = pictures(tmp_path, 1)
    damaged = good.read_bytes()[:60]
    found, unreadable = answers(PolyheadModelHandler(str(THREE)), [damaged, str(good), str(tmp_path / "gone.png")])
    assert found[1] == device(THREE, [str(good)], top_k=1)[0]
    assert unreadable == 2
    assert [list(document) for document in (found[0], found[2])] == [["error"], ["error"]]
    assert "gone.png" in found[2]["error"]


def test_a_wrong_head_ends_the_pipeline(tmp_path: Path) -> None:
    (good,) = pictures(tmp_path, 1)
    with pytest.raises(Exception, match="no head 'other'"):
        answers(PolyheadModelHandler(str(THREE), heads=["other"]), [str(good)])


def test_another_file_takes_over_and_the_name_of_the_file_is_in_each_result(tmp_path: Path) -> None:
    handler = PolyheadModelHandler(str(THREE), max_batch_size=4)
    (good,) = pictures(tmp_path, 1)
    before = [*handler.run_inference([str(good)], handler.load_model())]
    handler.update_model_path(str(JOINT))
    after = [*handler.run_inference([str(good)], handler.load_model())]
    handler.update_model_path(None)  # Beam's word for: no other file
    assert [one.model_id for one in (*before, *after)] == [str(THREE), str(JOINT)]
    assert timeless(after[0].inference) == device(JOINT, [str(good)], top_k=1)[0]
    assert handler.load_model().file_digest == MultiHeadClassifier(JOINT).file_digest


def test_an_address_is_copied_as_long_as_the_model_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    handler = PolyheadModelHandler(f"shelf://{THREE.absolute()}")
    model = handler.load_model()
    assert model.head_names == MultiHeadClassifier(THREE).head_names
    assert len(list(tmp_path.rglob("model.tflite"))) == 1
    model.close()
    del model
    assert list(tmp_path.iterdir()) == []
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"none")
    with pytest.raises(EdgeRuntimeError):
        PolyheadModelHandler(f"shelf://{broken}").load_model()
    assert list(tmp_path.iterdir()) == [broken]


def test_what_beam_asks_of_a_handler() -> None:
    handler = PolyheadModelHandler(str(THREE), heads=[0], min_batch_size=3)
    assert pickle.loads(pickle.dumps(handler)).batch_elements_kwargs()["min_batch_size"] == 3  # noqa: S301 - ours
    assert handler.get_num_bytes([b"1234", "ab", np.zeros((2, 2, 3), np.uint8)]) == 18
    assert handler.get_metrics_namespace() == NAMESPACE
    with pytest.raises(EdgeRuntimeError, match="inference_args: expected none, found top_k"):
        handler.validate_inference_args({"top_k": 1})
    other = PolyheadModelHandler(str(THREE), heads=["x"])
    with pytest.raises(UnknownHeadError):
        other.run_inference([np.zeros((9, 9, 3), np.uint8)], other.load_model())
