"""``edge-runtime camera``: options and signals around ``loop``."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Any, Callable, Iterator, Optional, Sequence, Tuple

import click

from edge_runtime.camera.schedule import parse_consensus
from edge_runtime.camera.smoothing import Rule
from edge_runtime.counting import count_of
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.escape import printable
from edge_runtime.interpreter import INTERPRETERS
from edge_runtime.metadata import JOINT
from edge_runtime.options import head_packs_option, trusted_key_option

_option = click.option


def _count_and_folder(
    ctx: click.Context, option: click.Parameter, value: Optional[Sequence[Any]]
) -> Optional[Tuple[int, str]]:
    if not value:
        return None
    folder: Any = click.Path(file_okay=False).convert(value[1], option, ctx)
    return click.IntRange(1).convert(value[0], option, ctx), folder


def _list_cameras(ctx: click.Context, _: object, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from edge_runtime.camera.listing import advice, cameras

    found = cameras()
    for camera in found:
        click.echo(printable(f"{camera.source}  {camera.name}"))
    if not found:
        click.echo(advice(), err=True)
    ctx.exit(0)


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@_option(
    "--source",
    default="auto",
    show_default=True,
    help="picamera2, a V4L2 number or /dev/video0, a folder, a picture, a video, or an address (http MJPEG, rtsp).",
)
@_option(
    "--head",
    "heads",
    metavar="NAME[:every=N,...]",
    multiple=True,
    help="Run only this head (or joint), on every N-th frame; also threshold=, smoothing=, hysteresis=, consensus=K/N.",
)
@_option("--joint", is_flag=True, help="Add one list of the labels of all heads, on every frame.")
@_option("--joint-only", is_flag=True, help="Run only that list: one answer among the labels of all heads.")
@_option("--threshold", type=float, help="Lowest score that is an answer. Default: 0.5; for the joint list the file's.")
@_option("--smoothing", type=float, default=Rule.smoothing, show_default=True, help="Weight of past scores, 0 to 1.")
@_option(
    "--hysteresis",
    type=float,
    default=Rule.hysteresis,
    show_default=True,
    help="How far another label must exceed the current answer to replace it.",
)
@_option(
    "--consensus",
    metavar="K/N",
    default=f"{Rule.agree}/{Rule.of}",
    show_default=True,
    help="Change the answer when K of the last N runs agree.",
)
@_option(
    "--size",
    metavar="WxH",
    help="Picture size to request from the camera. Default: the smallest that covers the model's.",
)
@_option("--fps", type=click.FloatRange(0.001, 1000), help="Largest number of frames per second.")
@_option("--loop", is_flag=True, help="Start again at the end of a folder or a video.")
@_option("--max-frames", type=click.IntRange(1), help="Stop after this many answered frames.")
@_option(
    "--lines",
    type=click.Choice(["event", "frame"]),
    default="event",
    show_default=True,
    help="Print a line for each event, or for each frame.",
)
@_option("--json", "as_json", is_flag=True, help="Machine-readable lines.")
@_option("--top-k", type=click.IntRange(1), help="Largest number of categories for each head in the line of a frame.")
@_option("--serve", metavar="[HOST:]PORT", help="Serve a live page. Without a host, only this machine can open it.")
@_option(
    "--viewers", type=click.IntRange(1, 100), default=4, show_default=True, help="Largest number of viewers at a time."
)
@_option("--token-file", type=click.Path(dir_okay=False), help="File with the page's token; created if it is missing.")
@_option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_cameras, help="List the cameras by name."
)
@_option(
    "--record",
    nargs=2,
    callback=_count_and_folder,  # click 7 takes no two types for what may be left out
    metavar="N DIR",
    help="Save N pictures that differ from each other in DIR, and classify nothing.",
)
@_option("--reload", is_flag=True, help="Load a new FILE while running, after it has passed a trial.")
@head_packs_option
@_option(
    "--interpreter",
    type=click.Choice(list(INTERPRETERS)),
    help="Interpreter that runs the file. Default: the first that is installed.",
)
@_option("--threads", type=click.IntRange(1, 64), help="Threads of the interpreter.")
@_option(
    "--isolate/--no-isolate",
    default=True,
    show_default=True,
    help="Try FILE in a separate process before it is opened.",
)
@trusted_key_option
def camera(
    consensus: str, size: Optional[str], joint_only: bool, record: Optional[Tuple[int, str]], **chosen: Any
) -> None:
    """Classify what a camera sees, frame by frame.

    Prints a line for each change of an answer."""
    if joint_only:
        if chosen["heads"]:
            raise EdgeRuntimeError("--joint-only runs no single head; give --head or --joint-only, not both")
        chosen["heads"] = (JOINT,)
    agree, of = _two(consensus, "/", "--consensus", "3/5", parse_consensus)
    parts = {name: chosen.pop(name) for name in ("threshold", "smoothing", "hysteresis")}
    sides = None if size is None else _two(size, "x", "--size", "640x480", _parse_size)
    everything = {**chosen, "rule": Rule(agree=agree, of=of, **parts), "size": sides}
    if record is None:
        _run(everything)
    else:
        _record(everything, *record)


def _run(chosen: Any) -> None:
    """Until the source ends or a signal comes. Raises ``EdgeRuntimeError`` and ``OSError`` for what cannot begin."""
    # Imported late: the other commands open a file faster without it.
    from edge_runtime.camera.camera import Camera
    from edge_runtime.camera.lines import say
    from edge_runtime.camera.loop import CameraOptions, Loop, Model
    from edge_runtime.camera.vitals import keep_memory_flat

    keep_memory_flat()  # before there are threads
    options = CameraOptions(**chosen)
    with contextlib.ExitStack() as stack:
        model = stack.enter_context(Model(options))
        page = None
        if options.serve is not None:
            from edge_runtime.camera.live_page import PATIENCE, live_page

            patience = max(PATIENCE, 3 / (options.fps or 1))
            page = stack.enter_context(
                live_page(options.serve, viewers=options.viewers, token_file=options.token_file, patience=patience)
            )

        def report(message: str) -> None:
            say(message)
            if page is not None:
                page.report(message)

        camera = Camera(
            model.classifier,
            options.source,
            heads=options.heads,
            joint=options.joint,
            rule=options.rule,
            size=options.size or ((640, 480) if page is not None else None),
            fps=options.fps,
            loop=options.loop,
            show=(lambda: False) if page is None else page.watched,
            report=report,
        )
        stack.enter_context(camera)
        stack.enter_context(signals(camera.stop))
        Loop(options, camera, model, page, report).run()


def _record(chosen: Any, count: int, folder: str) -> None:
    """Until there are ``count`` pictures in ``folder``, the source ends or a signal comes."""
    from edge_runtime.bundle import read_metadata
    from edge_runtime.camera.capture import Capture
    from edge_runtime.camera.lines import say
    from edge_runtime.camera.opening import open_source
    from edge_runtime.camera.record import INTERVAL, record
    from edge_runtime.camera.sources import SourceOptions
    from edge_runtime.inputs import picture_input

    spec = picture_input(read_metadata(chosen["file"]).input)
    options = SourceOptions(spec, chosen["size"] or (640, 480), chosen["loop"])
    first = open_source(chosen["source"], options)
    rate = chosen["fps"]
    interval = 1 / rate if rate else INTERVAL if first.live else 0.0
    capture = Capture(
        first,
        lambda: open_source(chosen["source"], options),
        spec,
        keep_all=not first.live,
        interval=interval,
        show=lambda: True,
        report=say,
    )
    stop = threading.Event()
    capture.start()
    try:
        with signals(stop.set):
            kept = record(capture, count, folder, stopped=stop.is_set, say=say)
    finally:
        capture.stop()
    if kept < count:
        counts = capture.counts
        why = "stopped" if stop.is_set() else "the source ended"
        others = f"{counts.captured} seen, the others were too much alike"
        say(f"{kept} of {count_of(count, 'pictures')} in {folder}: {why} ({others})")


@contextlib.contextmanager
def signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM end the loop after the frame that is under way; a second one ends the process as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: object) -> None:
        stop()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parse_size(text: str) -> Tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not 16 <= int(width) <= 8192 or not 16 <= int(height) <= 8192:
        raise ValueError(text)
    return int(width), int(height)


def _two(text: str, sign: str, option: str, example: str, parse: Callable[[str], Tuple[int, int]]) -> Tuple[int, int]:
    try:
        return parse(text)
    except ValueError as error:
        wanted = f"expected two numbers with {sign} between them, as in {example}"
        raise EdgeRuntimeError(f"{option} {text}: {wanted}") from error
