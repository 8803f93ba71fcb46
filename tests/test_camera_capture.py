"""The capture thread: the newest picture wins, broken ones are skipped, and a lost camera is opened again."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from edge_runtime.camera.capture import (
    BLANK_IN_A_ROW,
    BROKEN_IN_A_ROW,
    LONGEST_DELAY,
    Capture,
    is_blank,
)
from edge_runtime.camera.sources import Shot
from tests.camera_fakes import SPEC, Clock, Script, drain, gone, pixels


def never() -> Script:
    raise AssertionError("nothing was lost")


def run(source: Script, reopen=never, **options) -> tuple[Capture, list[str]]:
    """The whole life of a capture in this thread; frames overwrite each other, the last one waits."""
    said: list[str] = []
    capture = Capture(source, reopen, SPEC, report=said.append, **options)
    capture.run()
    return capture, said


def test_the_newest_frame_wins_and_the_others_are_counted() -> None:
    capture, said = run(Script([pixels(i) for i in range(10)], live=False))
    newest = capture.take(0)
    assert newest.number == 10
    np.testing.assert_array_equal(newest.shot.picture, pixels(9))
    assert capture.take(0) is None, "a frame is given once"
    assert (capture.counts.captured, capture.counts.dropped, said) == (10, 9, [])


def test_a_slow_reader_sees_recent_frames_in_order() -> None:
    """The source waits for the reader after every seventh picture: no sleeping, the same on any machine."""
    turn, taken = threading.Semaphore(0), threading.Semaphore(0)

    def before(reads: int) -> None:
        if reads and reads % 7 == 0:
            turn.release()
            taken.acquire(timeout=10)

    capture = Capture(Script([pixels(i) for i in range(70)], live=False, before=before), never, SPEC)
    capture.start()
    seen = []
    for _ in range(10):
        assert turn.acquire(timeout=10)
        seen.append(capture.take(5).number)
        taken.release()
    assert seen == [7, 14, 21, 28, 35, 42, 49, 56, 63, 70]
    assert capture.counts.dropped == 60
    assert capture.stop()


def test_a_source_that_is_not_live_can_wait_for_each_frame_to_be_taken() -> None:
    capture = Capture(Script([pixels(i) for i in range(30)], live=False), never, SPEC, keep_all=True)
    capture.start()
    assert [frame.number for frame in drain(capture)] == list(range(1, 31))
    assert capture.counts.dropped == 0
    assert capture.ended


def test_stopping_while_it_waits_for_a_taker_closes_the_source() -> None:
    source = Script([pixels(i) for i in range(30)], live=False)
    capture = Capture(source, never, SPEC, keep_all=True)
    capture.start()
    capture.take(5)
    assert capture.stop()
    assert source.closed == 1
    assert source.reads < 30


@pytest.mark.parametrize("size", [(32, 32), (640, 480), (31, 17), (1, 1), (1, 300)])
def test_frames_of_any_size_become_the_models(size: tuple[int, int]) -> None:
    picture = pixels(1, size)
    picture[0, 0] = 0
    frame = run(Script([picture], live=False))[0].take(0)
    if frame is not None:  # a single pixel has no contrast
        assert (frame.image.shape, frame.image.dtype) == ((1, 32, 32, 3), np.uint8)
    assert (frame is None) == (size == (1, 1))


def jpeg(seed: int = 1) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, (160, 120))).save(buffer, "JPEG")
    return buffer.getvalue()


BROKEN = {
    "torn": jpeg()[:900],
    "header only": jpeg()[:20],
    "empty": b"",
    "text": b"HTTP/1.1 500 oops",
    "no channels": np.zeros((40, 40), np.uint8),
    "four channels": np.zeros((40, 40, 4), np.uint8),
    "floats": np.zeros((40, 40, 3), np.float32),
    "no rows": np.zeros((0, 40, 3), np.uint8),
    "no such file": "/nowhere/picture.jpg",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_frames_are_passed_over_and_told_of_once(kind: str) -> None:
    capture, said = run(Script([BROKEN[kind], jpeg(), BROKEN[kind], pixels(3)], live=False))
    assert capture.take(0).number == 4
    assert (capture.counts.captured, capture.counts.broken, capture.counts.dropped) == (4, 2, 1)
    assert len(said) == 1
    assert "\n" not in said[0]


def test_a_live_camera_that_sends_only_broken_frames_is_opened_again() -> None:
    clock = Clock()
    second = Script([gone()])
    sources = [second]

    def reopen() -> Script:
        if not sources:
            clock._limit = 0
            raise gone()
        return sources.pop()

    first = Script([b"torn"] * (BROKEN_IN_A_ROW + 10))
    _, said = run(first, reopen, pause=clock.wait, clock=clock)
    assert (first.reads, first.closed, second.closed) == (BROKEN_IN_A_ROW, 1, 1)
    assert sum("camera lost" in line for line in said) == 1


@pytest.mark.parametrize("level", [0, 17, 255])
def test_frames_without_contrast_are_no_pictures(level: int) -> None:
    blank = np.full((60, 60, 3), level, np.uint8)
    capture, said = run(Script([blank] * (2 * BLANK_IN_A_ROW) + [pixels(1)] + [blank] * 3, live=False))
    assert capture.take(0).number == 2 * BLANK_IN_A_ROW + 1
    assert capture.counts.blank == 2 * BLANK_IN_A_ROW + 3
    assert len(said) == 1
    assert "without contrast" in said[0]


def test_a_blank_frame_now_and_then_is_no_news() -> None:
    blank = np.zeros((60, 60, 3), np.uint8)
    steps = ([blank] * (BLANK_IN_A_ROW - 1) + [pixels(1)]) * 3
    capture, said = run(Script(steps, live=False))
    assert (capture.counts.blank, said) == (3 * (BLANK_IN_A_ROW - 1), [])


def test_a_dim_scene_is_not_blank() -> None:
    dim = (pixels(1) // 20).astype(np.uint8)
    assert not is_blank(Shot(dim).tensor(SPEC))
    assert is_blank(np.full((1, 32, 32, 3), 9, np.uint8))


def test_a_camera_that_dies_comes_back_with_growing_patience_and_two_messages() -> None:
    clock, attempts = Clock(), []

    def reopen() -> Script:
        attempts.append(clock.now)
        if len(attempts) < 8:
            raise gone("no such device")
        return Script([pixels(2), None], live=True) if len(attempts) == 8 else never()

    first = Script([pixels(1), gone("unplugged")])
    last = Script([pixels(2)], live=False)
    sources = {8: last}
    capture, said = run(
        first,
        lambda: sources[len(attempts)] if reopen() else never(),
        pause=clock.wait,
        clock=clock,
    )
    assert clock.waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert max(clock.waits) == LONGEST_DELAY
    assert said == ["camera lost: camera: unplugged; trying again until it is back", "camera back after 121 s"]
    assert (capture.counts.lost, capture.counts.captured, capture.connected) == (1, 2, True)
    assert (first.closed, last.closed) == (1, 1)


def test_a_camera_that_opens_but_gives_nothing_is_not_back() -> None:
    clock = Clock(limit=200)
    opened = []

    def reopen() -> Script:
        opened.append(Script([gone("no frame")]))
        return opened[-1]

    capture, said = run(Script([pixels(1), gone()]), reopen, pause=clock.wait, clock=clock)
    assert len(said) == 1, "one message, however often it is tried"
    assert clock.waits[:7] == [1, 2, 4, 8, 16, 30, 30], "and with growing patience"
    assert not capture.connected
    assert capture.counts.lost == 1
    assert all(source.closed == 1 for source in opened)


def test_each_loss_is_told_of_and_patience_begins_anew_after_a_picture() -> None:
    clock = Clock()
    sources = [Script([pixels(3)], live=False), Script([pixels(2), gone("again")])]
    capture, said = run(Script([pixels(1), gone()]), lambda: sources.pop(), pause=clock.wait, clock=clock)
    assert [line.split()[1].rstrip(":") for line in said] == ["lost", "back", "lost", "back"]
    assert clock.waits == [1, 1]
    assert (capture.counts.lost, capture.counts.captured) == (2, 3)


def test_stopping_ends_the_attempts() -> None:
    clock = Clock(limit=3.5)
    tries = []

    def reopen() -> Script:
        tries.append(clock.now)
        raise gone()

    capture, _ = run(Script([gone()]), reopen, pause=clock.wait, clock=clock)
    assert tries == [1, 3]
    assert capture.ended


def test_the_rate_of_a_file_is_held_down_by_waiting() -> None:
    clock = Clock()
    source = Script([pixels(i) for i in range(5)], live=False)
    run(source, interval=0.5, pause=clock.wait, clock=clock)
    assert (source.reads, source.skips) == (6, 0)
    assert clock.waits == [0.5] * 5


def test_the_rate_of_a_camera_is_held_down_by_passing_over() -> None:
    """A camera of 10 frames a second, of which 2 are wanted: reading none in between would leave old ones in a queue."""
    clock = Clock()

    class Tenth(Script):
        def read(self, *, show: bool) -> Shot | None:
            clock.now += 0.1
            return super().read(show=show)

        def skip(self) -> bool:
            clock.now += 0.1
            return super().skip()

    source = Tenth([pixels(i) for i in range(40)] + [gone()])
    capture, _ = run(source, lambda: never(), interval=0.5, pause=lambda _: True, clock=clock)
    assert capture.counts.captured == 8
    assert source.skips == 32


def test_a_clock_that_stands_for_an_hour_makes_no_burst() -> None:
    """The process was suspended: what is late is late once."""
    clock = Clock()

    def before(reads: int) -> None:
        if reads == 3:
            clock.now += 3600

    source = Script([pixels(i) for i in range(6)], live=False, before=before)
    run(source, interval=1.0, pause=clock.wait, clock=clock)
    assert clock.waits == [1.0, 1.0, 1.0, 1.0, 1.0]


def test_whether_somebody_watches_reaches_the_source() -> None:
    watched = iter([False, True, True, False])
    source = Script([pixels(i) for i in range(3)], live=False)
    run(source, show=lambda: next(watched))
    assert source.shown == [False, True, True, False]


def test_another_model_gets_frames_of_its_own_size() -> None:
    capture = Capture(Script([pixels(i) for i in range(4)], live=False), never, SPEC)
    capture.spec = type(SPEC)(20, 24)
    capture.run()
    frame = capture.take(0)
    assert (frame.image.shape, frame.spec) == ((1, 20, 24, 3), type(SPEC)(20, 24))


def test_a_frame_that_waits_for_a_model_that_has_gone_is_counted() -> None:
    capture = Capture(Script([pixels(i) for i in range(4)]), never, SPEC)
    capture.run()
    capture.spec = type(SPEC)(20, 24)
    assert capture.take(0) is None
    assert (capture.counts.captured, capture.counts.dropped) == (4, 4)


UNFORESEEN = [ZeroDivisionError("a driver"), RuntimeError("one\ntwo"), MemoryError(), KeyError("k"), StopIteration()]


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("live", [True, False])
def test_a_read_that_fails_in_a_way_nobody_thought_of_is_a_broken_frame(error: Exception, live: bool) -> None:
    capture, said = run(Script([pixels(1), error, pixels(2), error, pixels(3)], live=live))
    assert capture.failure is None
    assert capture.take(0).number == 5
    assert (capture.counts.captured, capture.counts.broken, capture.counts.lost) == (5, 2, 0)
    assert len(said) == 1
    assert type(error).__name__ in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize("error", UNFORESEEN, ids=lambda error: type(error).__name__)
def test_a_frame_that_fails_in_a_way_nobody_thought_of_is_broken(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, errors = Shot.tensor, [error, error]

    def tensor(self: Shot, spec: object) -> np.ndarray:
        if errors:
            raise errors.pop()
        return whole(self, spec)

    monkeypatch.setattr(Shot, "tensor", tensor)
    capture, said = run(Script([pixels(1), pixels(2), pixels(3)]))
    assert (capture.take(0).number, capture.counts.broken, len(said)) == (3, 2, 1)
    assert type(error).__name__ in said[0]


def test_a_camera_whose_driver_only_fails_is_opened_again() -> None:
    again = [Script([pixels(1)])]
    first = Script([ZeroDivisionError("a driver")] * 1000)
    capture, _ = run(first, again.pop, pause=Clock().wait)
    assert (first.reads, first.closed) == (BROKEN_IN_A_ROW, 1)
    assert (capture.counts.lost, capture.counts.captured) == (1, BROKEN_IN_A_ROW + 1)


def test_a_file_whose_reader_only_fails_ends_the_capture_and_says_of_what() -> None:
    source = Script([ZeroDivisionError("a driver")] * 1000, live=False)
    capture = Capture(source, never, SPEC)
    with pytest.raises(ZeroDivisionError):
        capture.run()
    assert capture.ended
    assert isinstance(capture.failure, ZeroDivisionError)
    assert (source.reads, source.closed) == (BROKEN_IN_A_ROW, 1)


def test_opening_and_closing_that_fail_in_a_way_nobody_thought_of_end_nothing() -> None:
    class Stuck(Script):
        def close(self) -> None:
            super().close()
            raise ZeroDivisionError("a driver")

    tries: list[object] = [Script([pixels(2)]), KeyError("k"), gone(), ZeroDivisionError("b")]

    def reopen() -> Script:
        step = tries.pop()
        if isinstance(step, Exception):
            raise step
        return step

    first = Stuck([pixels(1), gone()])
    capture, said = run(first, reopen, pause=Clock().wait)
    assert (first.closed, capture.failure, capture.counts.captured, tries) == (1, None, 2, [])
    assert sum("ZeroDivisionError" in line for line in said) == 2
