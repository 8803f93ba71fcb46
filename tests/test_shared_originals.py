"""What originals have in common is built and run once, and no answer is another than that of the file alone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

keras = pytest.importorskip("keras")
from keras import layers  # noqa: E402

from builder.reading.formats import read_model  # noqa: E402
from builder.reading.originals import built, processes, shared  # noqa: E402
from builder.reading.originals.built import BuiltModels  # noqa: E402
from builder.reading.originals.original import KerasOriginal, Shown  # noqa: E402
from builder.reading.originals.processes import Job, OriginalError, process_of  # noqa: E402
from builder.reading.originals.shared import SharedRuns  # noqa: E402
from builder.support.errors import ModelFileError  # noqa: E402
from tests.tiny_models import seed_weights, tiny_base, tiny_classifier  # noqa: E402

PIXELS = np.random.default_rng(5).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8).astype(np.float32)


def nested(base: Any, units: int, activation: str = "softmax", seed: int = 1) -> Any:
    image = keras.Input((16, 16, 3))
    x = layers.Dropout(0.2)(base(layers.Rescaling(1 / 127.5, -1)(image), training=False))
    model = keras.Model(image, layers.Dense(units, activation=activation)(x))
    return _seeded_head(model, seed)


def by_operation(base: Any, units: int, activation: str = "softmax", seed: int = 1) -> Any:
    image = keras.Input((16, 16, 3))
    return _seeded_head(keras.Model(image, layers.Dense(units, activation=activation)(base(image / 2 - 1))), seed)


def flat(base: Any, units: int, activation: str = "softmax", seed: int = 1) -> Any:
    x = layers.Dense(units, name=activation)(base.output)
    return _seeded_head(keras.Model(base.input, layers.Activation(activation, name=f"named_{activation}")(x)), seed)


def stack(base: Any, units: int, activation: str = "softmax", seed: int = 1) -> Any:
    inner = keras.Sequential([keras.Input((16, 16, 3)), base])
    return _seeded_head(keras.Sequential([inner, layers.Dense(units, activation=activation)]), seed)


def _seeded_head(model: Any, seed: int) -> Any:
    kernel, bias = model.weights[-2:]
    rng = np.random.default_rng(seed)
    kernel.assign(rng.normal(size=kernel.shape))
    bias.assign(rng.normal(size=bias.shape))
    return model


FORMS = (nested, flat, stack, by_operation)


def base(seed: int = 0, change: Callable[[Any], None] = lambda model: None) -> Any:
    model = tiny_base(seed, size=16)
    change(model)
    return model


def one_bit(model: Any) -> None:
    kernel = np.array(model.weights[0])
    kernel.flat[7] = np.nextafter(kernel.flat[7], np.float32(np.inf))
    model.weights[0].assign(kernel)


def epsilon(model: Any) -> None:
    model.get_layer("tiny_base_stem_bn").epsilon = 0.1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The parts that are run from now on."""
    calls: list[Any] = []
    call = shared._call
    monkeypatch.setattr(shared, "_call", lambda part, x: calls.append(part) or call(part, x))  # type: ignore[func-returns-value]
    return calls


@pytest.mark.parametrize("form", FORMS)
def test_heads_of_one_base_run_it_once(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, calls = SharedRuns(keras), counted(monkeypatch)
    for units in (2, 3, 4):
        model = form(base(), units, seed=units)
        assert np.array_equal(runs.of(model)("pixels", lambda: PIXELS), model(PIXELS, training=False))
    convolutions = [
        part for part in calls if any("conv" in weight.path.lower() or "stem" in weight.path for weight in part.weights)
    ]
    assert len(convolutions) == 1
    runs.of(form(base(), 5))("pixels", _nobody)  # what is known is not made again


def _nobody() -> np.ndarray:
    raise RuntimeError("these samples are known")


def test_no_answer_is_anothers() -> None:
    """All pairs of near models one after the other, in both orders, each with the answers that it has alone."""
    bases = (base(), base(1), base(change=one_bit), base(change=epsilon))
    models = [form(one, 3) for form, one in itertools.product(FORMS, bases)]
    models += [form(base(), 3, "sigmoid") for form in FORMS] + [form(base(), 3, seed=2) for form in FORMS]
    alone = [np.asarray(model(PIXELS, training=False)) for model in models]
    for order in (range(len(models)), reversed(range(len(models)))):
        runs = SharedRuns(keras)
        for i in order:
            assert np.array_equal(runs.of(models[i])("pixels", lambda: PIXELS), alone[i]), i
    assert not np.array_equal(runs.of(models[0])("others", lambda: PIXELS[::-1]), alone[0])


def test_a_word_that_is_a_name_here_and_a_setting_there_is_not_taken_for_a_name() -> None:
    def chain(name: str, activation: str) -> Any:
        image = keras.Input((16, 16, 3))
        x = layers.Activation(activation, name=name)(image)
        return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Add()([x, image]))))

    runs = SharedRuns(keras)
    models = [chain("relu", "relu"), chain("tanh", "tanh"), chain("relu", "tanh")]
    for model in models:
        seed_weights(model, 1)
        assert np.array_equal(runs.of(model)("pixels", lambda: PIXELS - 100), model(PIXELS - 100, training=False))


def test_what_masks_is_not_cut() -> None:
    rows = layers.TimeDistributed(layers.Flatten())
    model = keras.Sequential([keras.Input((16, 16, 3)), rows, layers.Masking(0.0), layers.LSTM(3), layers.Dense(2)])
    seed_weights(model, 1)
    pixels = PIXELS / 255
    pixels[:, 4:] = 0
    assert np.array_equal(SharedRuns(keras).of(model)("pixels", lambda: pixels), model(pixels, training=False))


def test_only_as_much_is_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_MOST", 4000)
    runs = SharedRuns(keras)
    for i in range(20):
        runs.of(flat(base(), 3))(f"pixels {i}", lambda: PIXELS)
    assert 0 < sum(values.nbytes for values in runs._kept.values()) <= 4000


def saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_files_of_one_architecture_are_built_once_and_each_has_its_weights(kind: str, tmp_path: Path) -> None:
    models = BuiltModels()
    loads: list[Path] = []

    def answers(path: Path) -> np.ndarray:
        def load(_: Any) -> Any:
            loads.append(path)
            return keras.models.load_model(path, compile=False)

        return np.asarray(models.load(path, load)(PIXELS, training=False))

    files = {
        f"{form.__name__} {seed} {units} {activation}": form(base(seed), units, activation, seed=seed)
        for form, seed, (units, activation) in itertools.product(
            FORMS[:3], (0, 1), ((2, "softmax"), (3, "softmax"), (3, "relu"))
        )
    }
    for name, model in files.items():
        path = saved(model, tmp_path / f"{name}{kind}")
        assert np.array_equal(answers(path), model(PIXELS, training=False)), name
    assert len(loads) == len(files) / 2
    first, *_ = files
    assert np.array_equal(answers(tmp_path / f"{first}{kind}"), files[first](PIXELS, training=False))


class _Model:
    """A stand-in for the framework's model class. ``made``: the settings of the models that were built."""

    made: ClassVar[list[str]] = []

    def __init__(self, name: str) -> None:
        self._name = self.name = name

    @classmethod
    def from_config(cls, config: dict[str, Any], _: Any) -> _Model:
        cls.made.append(f"{config['name']} {config['layers']}")
        return cls(config["name"])


def test_a_base_is_built_once_for_all_files_that_have_it(tmp_path: Path) -> None:
    """Within one file each occurrence is built, because each has its own weights."""
    models = BuiltModels(SimpleNamespace(Model=_Model))
    (tmp_path / "file").touch()  # of no kind that is kept whole

    def loaded(*configs: tuple[str, int]) -> list[Any]:
        def load(known: Any) -> list[Any]:
            return [known["Functional"].from_config({"name": name, "layers": layers}) for name, layers in configs]

        return list(models.load(tmp_path / "file", load))

    (first,) = loaded(("one", 5))
    again, twin = loaded(("two", 5), ("three", 5))
    (other,) = loaded(("one", 6))
    assert again is first
    assert len({id(model) for model in (first, twin, other)}) == 3
    assert again._name == "two"
    assert _Model.made == ["one 5", "three 5", "one 6"]
    for count in range(10, 30):
        loaded(("many", count))
    assert loaded(("one", 5))[0] is not first  # only a few are kept


def test_weights_that_do_not_fit_are_told_as_the_framework_tells_them(tmp_path: Path) -> None:
    models = BuiltModels()
    path = saved(flat(base(), 2), tmp_path / "first.keras")
    models.load(path, lambda _: keras.models.load_model(path))
    (tmp_path / "second.keras").write_bytes(path.read_bytes())
    kept = next(iter(models._kept.values()))
    kept.load_weights = None  # as one that cannot take them
    with pytest.raises(ValueError, match="by the framework"):
        models.load(tmp_path / "second.keras", lambda _: _raise(ValueError("by the framework")))
    assert not models._kept


def _raise(error: Exception) -> Any:
    raise error


def test_a_model_with_a_state_is_built_each_time(tmp_path: Path) -> None:
    image = keras.Input(batch_shape=(1, 16, 48))
    path = saved(keras.Model(image, layers.Dense(2)(layers.LSTM(3, stateful=True)(image))), tmp_path / "state.keras")
    models = BuiltModels()
    assert models.load(path, lambda _: keras.models.load_model(path)) is not models.load(
        path, lambda _: keras.models.load_model(path)
    )


def test_only_as_many_models_are_kept_as_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "_MOST", 20_000)
    models = BuiltModels()
    for units in range(2, 9):
        path = saved(flat(base(), units), tmp_path / f"{units}.keras")
        models.load(path, lambda _: keras.models.load_model(path))  # noqa: B023  called at once
    assert 0 < sum(model.count_params() for model in models._kept.values()) <= 20_000


class Files:
    """Jobs that count their copies."""

    def __init__(self, model: Path) -> None:
        self.model, self.most, self.folders = model, 0, list[Path]()

    def job(self, after: Callable[[], None] = lambda: None) -> Job:
        def make(folder: Path) -> dict[str, Any]:
            self.folders.append(folder)
            self.most = max(self.most, sum(one.exists() for one in self.folders))
            np.save(folder / "x.npy", PIXELS)
            after()
            return {
                "model": str(self.model), "output": str(folder / "answers.npy"), "inputs": str(folder / "x.npy"),
                "kind": "tokens", "memory": 4, "allow_code": False, "shape": (), "packages": (), "of_outputs": None,
                "preprocessor": False,
            }  # fmt: skip

        return process_of("keras").submit(Job(make, 60))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(flat(base(), 2), tmp_path_factory.mktemp("files") / "model.keras")


def test_the_files_of_two_jobs_lie_on_the_disk_at_once_and_no_more(file: Path) -> None:
    files = Files(file)
    jobs = [files.job() for _ in range(6)]
    answers = [process_of("keras").result(job) for job in jobs]
    assert all(np.array_equal(answers[0], one) for one in answers)
    assert files.most <= 2
    assert not any(folder.exists() for folder in files.folders)


def test_what_a_job_cannot_write_is_raised_where_its_answers_are_asked_for_and_stops_no_other(file: Path) -> None:
    files = Files(file)
    first, broken, last = files.job(), files.job(lambda: _raise(ModelFileError("no room"))), files.job()
    with pytest.raises(ModelFileError, match="no room"):
        process_of("keras").result(broken)
    assert np.array_equal(process_of("keras").result(first), process_of("keras").result(last))
    assert not any(folder.exists() for folder in files.folders)


def test_cancelled_jobs_end_and_the_process_takes_new_ones(file: Path) -> None:
    files, process = Files(file), process_of("keras")
    jobs = [files.job() for _ in range(4)]
    process.abandon(jobs[-1:])
    assert not any(folder.exists() for folder in files.folders)
    with pytest.raises(OriginalError, match="cancelled"):
        process.result(jobs[-1])
    assert process.result(files.job()).shape == (3, 2)
    process.abandon(jobs)  # these have ended: nothing is cancelled
    assert process._child is not None


def test_the_end_waits_for_the_files_that_are_being_written_and_removes_them(file: Path) -> None:
    files, process = Files(file), process_of("keras")
    begun, gate = threading.Event(), threading.Event()
    files.job(lambda: begun.set() or gate.wait() or None)
    begun.wait()
    ending = threading.Thread(target=process.end)
    ending.start()
    ending.join(0.2)  # long enough for an end that does not wait
    waits = ending.is_alive()
    gate.set()
    ending.join()
    assert waits
    assert not any(folder.exists() for folder in files.folders)


def test_originals_that_are_shown_one_array_share_one_file(tmp_path: Path) -> None:
    paths = [saved(tiny_classifier(tiny_base(size=16), units), tmp_path / f"{units}.keras") for units in (2, 3)]
    pixels = PIXELS.astype(np.uint8)
    asked = [read_model(path).original.ask(Shown(pixels), max_memory=1.0) for path in (*paths, paths[0])]
    other = read_model(paths[0]).original.ask(Shown(pixels.copy()), max_memory=1.0)
    answers = [one() for one in (*asked, other)]
    assert np.array_equal(answers[0], answers[2]) and np.array_equal(answers[0], answers[3])
    inputs = [one.job.request["inputs"] for one in (*asked, other)]
    assert len(set(inputs)) == 2 and len(set(inputs[:3])) == 1
    assert not any(Path(one).exists() for one in inputs)


def test_many_jobs_get_a_second_process_that_ends_with_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MANY", 2)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 2)
    stored, gate = read_model(file).original, threading.Event()
    assert isinstance(stored, KerasOriginal)
    given = replace(stored, copy=lambda folder: stored.copy(folder) if gate.wait() else folder)
    asked = [given.ask(Shown(PIXELS), max_memory=1.0) for _ in range(7)]
    gate.set()
    assert all(np.array_equal(one(), asked[0]()) for one in asked)
    first, second = processes._PROCESSES["keras"]
    assert [one.process for one in asked] == [first, first, second, second, first, second, first]
    with second._lock:
        thread = second._thread
    if thread is not None:
        thread.join()
    assert second._child is None and first._child is not None
    gate.clear()
    again = [given.ask(Shown(PIXELS), max_memory=1.0) for _ in range(4)]
    assert [one.process for one in again] == [first, first, second, second]
    gate.set()
    for one in again:
        one.abandon()
    assert first.jobs == second.jobs == 0


def test_one_processor_has_one_process(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MANY", 0)
    monkeypatch.setattr(processes, "_PROCESSES", {})
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 1)
    assert {processes.process_for_a_job("keras") for _ in range(3)} == set(processes._PROCESSES["keras"])
    assert len(processes._PROCESSES["keras"]) == 1
