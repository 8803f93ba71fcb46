"""The camera loop: schedules (by counting runs), events only on a change, whole lines, and the trial of a new model."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import MultiHeadClassifier
from edge_runtime.bundle import append_members, read_metadata
from edge_runtime.camera import Camera, Heads, frame_lines, loop, reload
from edge_runtime.camera.capture import Counts
from edge_runtime.camera.frame_lines import event_json, frame_json, heads_document, labels_document
from edge_runtime.camera.lines import Lines
from edge_runtime.camera.loop import CameraOptions, Loop, Model
from edge_runtime.camera.reload import Reloader, open_copy
from edge_runtime.camera.schedule import parse_plans
from edge_runtime.camera.smoothing import Rule
from edge_runtime.camera.vitals import Rate, Thermometer, notify_systemd
from edge_runtime.errors import BundleError, EdgeRuntimeError, SourceError, UnknownHeadError
from edge_runtime.identity import file_digest
from edge_runtime.joint import judge
from tests.camera_fakes import SPEC, Clock, CountingClassifier, frame
from tests.tiny_models import THREE_HEADS

AT_ONCE = Rule(smoothing=0, agree=1, of=1)


def heads(classifier: CountingClassifier, *texts: str, rule: Rule = AT_ONCE, joint: bool = False) -> Heads:
    plans = parse_plans(texts, classifier.head_names, rule, joint=joint)
    return Heads(classifier, plans, wall_clock=lambda: 1000.0)


@pytest.mark.parametrize("every", [1, 2, 3, 7, 30])
def test_a_head_runs_on_exactly_each_nth_frame(every: int) -> None:
    classifier = CountingClassifier({"door": [[0.9, 0.1]], "plants": [[0.2, 0.8]]})
    seeing = heads(classifier, f"plants:every={every}", "door")
    ran = [[c.head_name for c in seeing.see(frame(i)).result.classifications] for i in range(100)]
    assert classifier.backbone_runs == 100
    assert classifier.runs["door"] == list(range(100))
    assert classifier.runs["plants"] == list(range(0, 100, every))
    assert ran == [["plants", "door"] if i % every == 0 else ["door"] for i in range(100)]


def test_the_backbone_rests_on_frames_without_a_head() -> None:
    classifier = CountingClassifier({"a": [[1.0]], "b": [[1.0]], "c": [[1.0]]})
    seeing = heads(classifier, "a:every=4", "b:every=6")
    for i in range(24):
        seeing.see(frame(i))
    assert classifier.backbone_runs == len([i for i in range(24) if i % 4 == 0 or i % 6 == 0])
    assert {name: len(runs) for name, runs in classifier.runs.items()} == {"a": 6, "b": 4, "c": 0}


def test_the_joint_list_is_smoothed_and_answers_like_a_head() -> None:
    rows = [[0.9, 0.0, 0.1]] * 4 + [[0.0, 0.0, 1.0]] * 4
    classifier = CountingClassifier({"door": [[0.2, 0.8]]}, joint=rows)
    seeing = heads(classifier, joint=True, rule=replace(AT_ONCE, smoothing=0.6))
    seen = [seeing.see(frame(i)) for i in range(8)]
    events = [(e.frame, e.category_name, e.previous) for s in seen for e in s.events if e.head_name == "joint"]
    assert events == [(0, "door/door 0", None), (5, None, "door/door 0")], "none is a picture of no head"
    assert [c.head_name for c in seen[0].result.classifications] == ["door"]
    assert seen[0].result.joint.best.category_name == "door/door 0"
    assert seen[4].result.joint.categories[0].category_name == "none"
    name, answer, best = seeing.smoothed(2)[-1]
    assert (name, answer.category_name) == ("joint", None)
    assert [category.category_name for category in best] == ["none", "door/door 0"]


probabilities = st.lists(st.integers(0, 8), min_size=6, max_size=6).filter(any)


@given(
    rows=st.lists(probabilities, min_size=1, max_size=6),
    threshold=st.none() | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    smoothing=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_of_a_scene_that_stays_the_joint_list_says_what_classify_says(
    rows: list[list[int]], threshold: float | None, smoothing: float
) -> None:
    """Whatever came before; the file's own threshold unless the user gives one."""
    shares = [[n / sum(row) for n in row] for row in rows]
    classifier = CountingClassifier({"a": [[0.5, 0.5]], "b": [[0.2, 0.3, 0.5]]}, joint=shares)
    rule = Rule(threshold=threshold, smoothing=smoothing, hysteresis=0)
    seeing = heads(classifier, joint=True, rule=rule)
    for number in range(len(rows) + 60):
        seen = seeing.see(frame(number))
    scores, evidence = classifier.joint_scores(np.zeros(0))
    best = judge(classifier.joint.with_thresholds(threshold), scores, evidence).best
    bar, likeliest = 0.5 if threshold is None else threshold, max(evidence[:-1])
    gaps = [np.diff(sorted(scores[:-1]))[-1], likeliest - bar, likeliest - evidence[-1]]
    if min(map(abs, gaps)) > 0.01:  # what is smoothed is never quite there, and at a tie the answer stays
        assert seen.answers["joint"].category_name == (best and best.category_name)
        assert seen.result.joint.best == best


def test_the_joint_list_runs_by_schedule_on_that_frames_features_alone() -> None:
    classifier = CountingClassifier({"a": [[1.0]], "b": [[1.0]]}, joint=[[0.5, 0.25, 0.25]])
    seeing = heads(classifier, "joint:every=3", "b:every=2")
    joint = [seeing.see(frame(i)).result.joint for i in range(6)]
    assert classifier.runs == {"a": [], "b": [0, 1, 3], "joint": [0, 2]}  # by run of the backbone, which rests twice
    assert [found is not None for found in joint] == [True, False, False, True, False, False]


def test_no_joint_list_without_being_asked() -> None:
    classifier = CountingClassifier({"a": [[1.0]]}, joint=[[0.5, 0.5]])
    seen = heads(classifier).see(frame())
    assert seen.result.joint is None
    assert (list(seen.answers), classifier.runs["joint"]) == (["a"], [])


@pytest.mark.parametrize(
    ("texts", "joint"), [(["joint"], False), (["a", "joint:every=2"], False), ([], True), (["a"], True)]
)
def test_a_file_without_a_joint_list_refuses_it(texts: list[str], joint: bool) -> None:
    with pytest.raises(UnknownHeadError, match="no joint head"):
        heads(CountingClassifier({"a": [[1.0]]}), *texts, joint=joint)


def test_an_event_comes_with_each_change_and_never_else() -> None:
    rows = [[0.9, 0.1]] * 5 + [[0.1, 0.9]] * 5 + [[0.45, 0.45]] * 5 + [[0.9, 0.1]] * 5
    seeing = heads(CountingClassifier({"door": rows, "calm": [[0.3, 0.7]]}), rule=replace(AT_ONCE, hysteresis=0))
    events = [event for i in range(20) for event in seeing.see(frame(i)).events]
    assert [(e.frame, e.head_name, e.previous, e.category_name) for e in events] == [
        (0, "door", None, "door 0"),
        (0, "calm", None, "calm 1"),
        (5, "door", "door 0", "door 1"),
        (10, "door", "door 1", None),
        (15, "door", None, "door 0"),
    ]
    assert all(event.time == 1000.0 for event in events)


def test_answers_of_heads_that_rest_stay() -> None:
    classifier = CountingClassifier({"a": [[0.9, 0.1]], "b": [[0.1, 0.9], [0.9, 0.1]]})
    seeing = heads(classifier, "a", "b:every=3")
    answers = [seeing.see(frame(i)).answers["b"].category_name for i in range(5)]
    assert answers == ["b 1", "b 1", "b 1", "b 0", "b 0"]


def test_what_was_seen_does_not_change_later() -> None:
    seeing = heads(CountingClassifier({"a": [[0.9, 0.1], [0.1, 0.9]]}))
    first = seeing.see(frame(1))
    seeing.see(frame(2))
    assert first.answers["a"].category_name == "a 0"


def test_the_lines_parse_and_hold_what_was_seen() -> None:
    seeing = heads(CountingClassifier({"door": [[0.75, 0.25]], "rest": [[1.0]]}), "door", "rest:every=9")
    seeing.see(frame(1))
    seen = seeing.see(frame(7))
    document = json.loads(frame_json(seen, fps=12.345, dropped=3, temperature=51.5))
    assert document["classifications"] == [
        {
            "head_index": 0,
            "head_name": "door",
            "categories": [
                {"index": 0, "score": 0.75, "category_name": "door 0"},
                {"index": 1, "score": 0.25, "category_name": "door 1"},
            ],
        }
    ]
    assert document["answers"]["rest"] == {"category_name": "rest 0", "score": 1.0}
    assert (document["frame"], document["fps"], document["dropped"]) == (7, 12.35, 3)
    assert (document["temperature"], document["source"], document["events"]) == (51.5, None, [])
    event = json.loads(event_json(heads(CountingClassifier({"dör": [[1.0]]})).see(frame(4)).events[0]))
    assert event == {
        "time": 1000.0, "frame": 4, "head_name": "dör", "category_name": "dör 0", "score": 1.0, "previous": None,
    }  # fmt: skip


def test_the_page_shows_the_best_smoothed_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_lines, "SHOWN_IN_ALL", 10)
    row = [0.1, 0.3, 0.05, 0.25, 0.2, 0.06, 0.04]
    seeing = heads(CountingClassifier({"many": [row], "later": [[1.0]]}), "many", "later:every=5")
    assert [head["categories"] for head in heads_document(seeing)] == [[], []]
    seeing.see(frame(1))
    many = heads_document(seeing)[0]
    assert [c["category_name"] for c in many["categories"]] == ["many 1", "many 3", "many 4", "many 0", "many 5"]
    assert (many["answer"], many["labels"]) == (None, 7)
    everything = labels_document(seeing.latest())
    assert [c["score"] for c in everything["many"]] == sorted(row, reverse=True)
    assert len(everything["later"]) == 1


# ``Camera`` over a folder of pictures.


def test_every_picture_of_a_folder_is_answered_once_as_classify_answers(
    tiny_file: Path, tiny_pictures: list[Path]
) -> None:
    with MultiHeadClassifier(tiny_file) as classifier:
        with Camera(classifier, str(tiny_pictures[0].parents[1])) as camera:
            found = {seen.frame.shot.name: seen.result.classifications for seen in camera}
        assert list(found) == sorted(map(str, tiny_pictures))
        assert camera.counts.dropped == 0
        for path, classifications in found.items():
            assert classifications == classifier.classify(path).classifications


def test_a_model_that_takes_over_gets_pictures_of_its_size(tiny_pictures: list[Path], monkeypatch) -> None:
    small = CountingClassifier({"a": [[1.0]]})
    large = CountingClassifier({"a": [[0.2, 0.8]], "b": [[1.0]]}, replace(SPEC, height=48, width=40))
    with Camera(small, str(tiny_pictures[0].parents[1]), heads=["a"], loop=True, rule=AT_ONCE) as camera:
        iterator = iter(camera)
        next(iterator)
        camera.use(large)
        seen = next(iterator)  # the fake asserts the shape
        assert seen.answers["a"].category_name == "a 1"
        assert seen.events[0].previous is None, "answers begin anew"
        with pytest.raises(UnknownHeadError):
            camera.use(CountingClassifier({"other": [[1.0]]}))
        assert next(iterator).answers.keys() == {"a"}, "and the one before goes on"


def test_the_iteration_ends_when_stopped(tiny_pictures: list[Path]) -> None:
    classifier = CountingClassifier({"a": [[1.0]]})
    with Camera(classifier, str(tiny_pictures[0].parents[1]), loop=True) as camera:
        for count, _ in enumerate(camera):
            if count == 9:
                camera.stop()
    assert count == 9
    assert camera.close()


@pytest.mark.parametrize(("fps", "patience"), [(None, 45), (0.01, 145)])
def test_a_camera_without_a_sign_of_life_is_stalled(
    tiny_pictures: list[Path], monkeypatch: pytest.MonkeyPatch, fps: float | None, patience: float
) -> None:
    with Camera(CountingClassifier({"a": [[1.0]]}), str(tiny_pictures[0]), fps=fps) as camera:
        last = camera._capture.last_sign
        for age, stalled in ((0, False), (patience - 5, False), (patience + 5, True)):
            monkeypatch.setattr("edge_runtime.camera.camera.time.monotonic", lambda age=age: last + age)
            assert camera.stalled == stalled
        monkeypatch.undo()


def test_a_camera_that_is_not_there_to_begin_with_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        Camera(CountingClassifier({"a": [[1.0]]}), str(tmp_path))


# The loop around it.


def options(file: Path, **changes: object) -> CameraOptions:
    chosen = {field.name: None for field in fields(CameraOptions)}
    given = {"file": str(file), "rule": AT_ONCE, "heads": (), "head_packs": (), "lines": "event", "viewers": 1}
    return CameraOptions(**{**chosen, **given, **changes})


@pytest.mark.parametrize("stalled", [False, True])
def test_the_watchdog_is_told_alive_unless_the_driver_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stalled: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(loop, "notify_systemd", told.append)
    camera = SimpleNamespace(running=True, stalled=stalled, counts=Counts(), heads_of=None)
    camera.next = lambda timeout, top_k: setattr(camera, "running", False)
    monkeypatch.setattr("sys.stdout", SimpleNamespace(fileno=lambda: 1))
    model = SimpleNamespace(document={"name": "a", "version": None, "digest": "sha256:"})
    Loop(options(tmp_path), camera, model, None, print).run()  # type: ignore[arg-type]
    assert told == ["READY=1", *([] if stalled else ["WATCHDOG=1"]), "STOPPING=1"]


def test_signs_of_life_are_as_far_apart_as_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    now = 100.0
    camera = SimpleNamespace(running=True, stalled=False, counts=Counts(), heads_of=None)

    def next_frame(timeout: float, top_k: object) -> None:
        nonlocal now
        now += timeout
        camera.running = now < 100 + 3 * loop.PULSE

    camera.next = next_frame
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(loop, "notify_systemd", lambda message: told.append((now, message)))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(fileno=lambda: 1))
    model = SimpleNamespace(document={"name": "a", "version": None, "digest": "sha256:"})
    Loop(options(tmp_path), camera, model, None, print).run()  # type: ignore[arg-type]
    pulses = [when for when, message in told if message == "WATCHDOG=1"]
    assert np.diff(pulses).tolist() == [loop.PULSE] * 2


def test_a_new_model_takes_over_between_two_frames_and_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers before the old one is closed; and at the end nobody watches the file any more."""
    happened, lines = list[str](), list[str]()
    new = {"name": "new", "version": None, "digest": "sha256:1"}
    model = SimpleNamespace(document={**new, "name": "old"})
    model.replace = lambda found: (happened.append("old one closed"), setattr(model, "document", found))
    waiting = [None, new]
    poll = lambda: waiting.pop(0) if waiting else None  # noqa: E731
    watcher = SimpleNamespace(poll=poll, close=lambda: happened.append("watcher closed"))
    monkeypatch.setattr(loop, "Reloader", lambda *_: watcher)
    monkeypatch.setattr(loop, "Lines", lambda *_: SimpleNamespace(write=lines.append))
    monkeypatch.setattr(loop, "frame_json", lambda _, model, replaces, **__: json.dumps([model, replaces]))
    monkeypatch.setattr("sys.stdout", SimpleNamespace(fileno=lambda: 1))
    camera = SimpleNamespace(running=True, stalled=False, counts=Counts(), heads_of=None)
    camera.next = lambda timeout, top_k: SimpleNamespace(events=())
    camera.use = lambda found: happened.append(f"{found['name']} used")
    chosen = options(tmp_path / "file", lines="frame", as_json=True, reload=True, max_frames=4)
    Loop(chosen, camera, model, None, happened.append).run()  # type: ignore[arg-type]
    assert [said.partition(":")[0] for said in happened] == ["new used", "old one closed", "model", "watcher closed"]
    told = [[None if one is None else one["name"] for one in json.loads(line)] for line in lines]
    assert told == [["old", None], ["old", None], ["new", "old"], ["new", None]]


def test_every_model_that_was_opened_is_closed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[SimpleNamespace] = []

    def open_one(*_: object, **__: object) -> SimpleNamespace:
        model = SimpleNamespace(closed=0)
        model.close = lambda: setattr(model, "closed", model.closed + 1)
        opened.append(model)
        return model

    monkeypatch.setattr(loop, "MultiHeadClassifier", open_one)
    with Model(options(tmp_path)) as model:
        for count in range(1, 4):
            model.replace(model.open(isolate=False))
            assert [one.closed for one in opened] == [1] * count + [0]
    assert [one.closed for one in opened] == [1] * 4


# Lines that are written whole or not at all.


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A disk with room for so many bytes. It may become full in the middle of a line."""
    left, write = [100], os.write

    def full(fd: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(fd, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)
    return left


def test_a_full_disk_tears_no_line_and_is_told_of_once(tmp_path: Path, room: list[int]) -> None:
    said: list[str] = []
    with (tmp_path / "out").open("wb") as file:
        lines = Lines(file.fileno(), said.append)
        for i in range(20):
            lines.write(f"line {i:02d} of 16 b")
        whole = [f"line {i:02d} of 16 b" for i in range(6)]
        assert (tmp_path / "out").read_text().splitlines() == whole
        assert len(said) == 1
        assert "No space left on device" in said[0]
        room[0] = 1000  # somebody made room
        lines.write("it works again")
    assert (tmp_path / "out").read_text().splitlines() == [*whole, "it works again"]
    assert lines.lost == 14
    assert said[1:] == ["output works again after 14 lost lines"]


def test_a_line_that_a_pipe_took_half_of_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went into a pipe cannot be taken back: the reader gets one line that does not parse, then whole ones."""
    reader, writer = os.pipe()
    real, plan = os.write, [4, OSError(28, "No space left on device")]

    def write(fd: int, data: bytes) -> int:
        step = plan.pop(0) if plan else len(data)
        if isinstance(step, OSError):
            raise step
        return real(fd, data[:step])

    monkeypatch.setattr(os, "write", write)
    lines = Lines(writer, lambda _: None)
    for text in ("first", "second", "third"):
        lines.write(text)
    monkeypatch.undo()
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "firs\nsecond\nthird\n"


def test_a_reader_that_has_gone_is_left_to_the_caller() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        Lines(writer, print).write("line")
    os.close(writer)


# A new model file.


class Files:
    """A watched model file, with a record of what ``Reloader`` does."""

    def __init__(self, path: Path, **options) -> None:
        self.path, self.said, self.clock = path, [], Clock()
        self.opened: list[CountingClassifier] = []
        path.write_bytes(b"0")
        self.reloader = Reloader(str(path), options.get("open_new", self._open), options.get("accept", lambda _: None),
                                 self.said.append, clock=self.clock)  # fmt: skip

    def _open(self) -> CountingClassifier:
        self.opened.append(CountingClassifier({"a": [[1.0]]}))
        return self.opened[-1]

    def put(self, content: bytes) -> None:
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(self.path)

    def look(self, seconds: float = reload.INTERVAL) -> object:
        self.clock.now += seconds
        found = self.reloader.poll()
        thread = self.reloader._thread
        if thread is not None:
            thread.join(30)
            found = self.reloader.poll()
        return found


def test_a_file_that_stays_is_never_opened_again(tmp_path: Path) -> None:
    files = Files(tmp_path / "m")
    assert [files.look() for _ in range(5)] == [None] * 5
    assert (files.opened, files.said) == ([], [])


def test_a_new_file_takes_over_once_it_rests(tmp_path: Path) -> None:
    files = Files(tmp_path / "m")
    files.put(b"11")
    assert files.look() is None, "it may still be growing"
    files.put(b"112")
    assert files.look() is None
    new = files.look()
    assert [new] == files.opened
    assert [files.look() for _ in range(3)] == [None] * 3, "it is given once"
    assert len(files.said) == 1


@pytest.mark.parametrize("kept", ["time and size", "time and file", "size and file"])
def test_a_file_is_new_by_its_time_its_size_or_its_place(tmp_path: Path, kept: str) -> None:
    """Programs that copy keep the time, those that overwrite keep the place."""
    files = Files(tmp_path / "m")
    before = files.path.stat()
    content = b"11" if kept == "time and file" else b"1"
    if "file" in kept:
        files.path.write_bytes(content)
    else:
        files.put(content)
    moved = 0 if "time" in kept else 1
    os.utime(files.path, ns=(before.st_atime_ns, before.st_mtime_ns + moved))
    assert [files.look(), files.look()] == [None, *files.opened]
    assert len(files.opened) == 1


def test_between_looks_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path / "m")
    monkeypatch.setattr(reload, "_fingerprint", lambda _: pytest.fail("looked"))
    assert [files.look(0.1) for _ in range(10)] == [None] * 10


def test_a_file_that_is_missing_for_a_moment_is_no_news(tmp_path: Path) -> None:
    files = Files(tmp_path / "m")
    files.path.unlink()
    assert [files.look() for _ in range(3)] == [None] * 3
    files.put(b"222")
    assert files.look() is None
    assert files.look() is files.opened[0]


@pytest.mark.parametrize("error", [BundleError("damaged"), OSError(28, "No space left on device")])
def test_a_bad_file_is_refused_once_and_the_next_may_take_over(tmp_path: Path, error: Exception) -> None:
    outcomes: list[object] = [error, CountingClassifier({"a": [[1.0]]})]

    def open_new() -> object:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    files = Files(tmp_path / "m", open_new=open_new)
    files.put(b"bad")
    assert [files.look() for _ in range(5)] == [None] * 5
    assert len(files.said) == 1
    assert "refused" in files.said[0]
    files.put(b"good")
    assert files.look() is None
    assert files.look() is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [ValueError("numpy says no"), MemoryError(), SystemExit(3), RecursionError("deep")])
@pytest.mark.parametrize("place", ["open_new", "accept"])
def test_whatever_a_new_file_raises_is_said_and_the_next_is_tried(
    tmp_path: Path, error: BaseException, place: str
) -> None:
    errors = [error]

    def fail_once(given: object = None) -> object:
        if errors:
            raise errors.pop()
        return given or CountingClassifier({"a": [[1.0]]})

    files = Files(tmp_path / "m", **{place: fail_once})
    files.put(b"bad")
    assert [files.look() for _ in range(3)] == [None] * 3
    assert len(files.said) == 1
    assert "refused" in files.said[0]
    assert type(error).__name__ in files.said[0]
    files.put(b"good")
    assert [files.look() is not None for _ in range(2)] == [False, True]


def test_a_new_model_that_nobody_took_is_closed(tmp_path: Path) -> None:
    closed = []
    files = Files(tmp_path / "m", open_new=lambda: SimpleNamespace(close=lambda: closed.append(1)))
    files.put(b"11")
    for _ in range(2):
        files.clock.now += reload.INTERVAL
        files.reloader.poll()
    files.reloader.close()
    assert closed == [1]
    files.reloader.close()
    assert closed == [1]


def test_a_file_that_does_not_suit_is_closed_again(tmp_path: Path) -> None:
    closed = []

    def accept(_: object) -> None:
        raise UnknownHeadError("no head 'door'")

    files = Files(tmp_path / "m", open_new=lambda: SimpleNamespace(close=lambda: closed.append(1)), accept=accept)
    files.put(b"11")
    assert [files.look() for _ in range(3)] == [None] * 3
    assert closed == [1]
    assert "no head 'door'" in files.said[0]


def test_the_copy_is_not_touched_by_who_overwrites_the_file(tiny_file: Path, tiny_pictures: list[Path], tmp_path) -> None:
    path = tmp_path / "model.tflite"
    shutil.copyfile(tiny_file, path)
    with open_copy(str(path)) as classifier:
        expected = classifier.classify(tiny_pictures[0]).classifications
        path.write_bytes(b"\0" * path.stat().st_size)
        assert classifier.classify(tiny_pictures[0]).classifications == expected
        assert classifier.file_digest == file_digest(str(tiny_file))


def test_no_copy_is_left_behind(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_copy(str(tiny_file)).close()
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(tiny_file.read_bytes()[:500])
    with pytest.raises(BundleError, match=r"bad\.tflite"):
        open_copy(str(bad))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tflite"]


def test_a_file_is_tried_in_a_process_of_its_own_first(tiny_file: Path, tmp_path: Path) -> None:
    """A file with valid members and a model that the interpreter cannot run."""
    metadata = read_metadata(str(tiny_file))
    model = bytearray(tiny_file.read_bytes()[: metadata.model_bytes])
    model[8 : len(model) // 2] = b"\xff" * (len(model) // 2 - 8)
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(append_members(bytes(model), metadata))
    with pytest.raises(EdgeRuntimeError) as caught:
        open_copy(str(bad), isolate=True)
    assert str(bad) in str(caught.value)
    open_copy(str(tiny_file), isolate=True).close()


# How the device does.


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate(window=2.0)
    assert rate(0.0) == 0.0
    for i in range(101):
        rate.tick(i / 10)
    assert rate(10.0) == pytest.approx(10.0)
    assert rate(11.0) == pytest.approx(5.0, abs=0.5), "it falls when frames stop"
    assert rate(100.0) == 0.0
    for now in (200.0, 201.5, 202.0):
        rate.tick(now)
    assert rate(202.0) == 1.0, "the window has both its ends"


def test_the_temperature_is_read_now_and_then(tmp_path: Path) -> None:
    path = tmp_path / "temp"
    path.write_text("51234\n")
    thermometer = Thermometer(str(path), interval=5)
    assert thermometer(0.0) == 51.2
    path.write_text("60000\n")
    assert thermometer(4.9) == 51.2
    assert thermometer(5.0) == 60.0
    path.unlink()
    assert thermometer(10.0) is None
    path.write_text("none")
    assert thermometer(15.0) is None


def test_systemd_is_told_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    assert not notify_systemd("READY=1")
    for told in (str(tmp_path / "notify"), f"@{tmp_path}"):  # the second has a name and no file
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(told.replace("@", "\0"))
            listener.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", told)
            assert notify_systemd("WATCHDOG=1")
            assert listener.recv(100) == b"WATCHDOG=1"


def test_the_fake_classifier_gives_the_types_of_the_real_one(tiny_file: Path) -> None:
    with MultiHeadClassifier(tiny_file) as classifier:
        assert classifier.head_names == tuple(THREE_HEADS)
        fake = CountingClassifier({"a": [[1.0]]})
        features = classifier.features_of(np.zeros((1, 32, 32, 3), np.uint8))
        assert classifier.head_scores(features, "animals").dtype == fake.head_scores(features, "a").dtype
