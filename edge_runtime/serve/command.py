"""``edge-runtime serve``: options and signals around ``ServeApplication``."""

from __future__ import annotations

import threading
from typing import Optional, Sequence

import click

from edge_runtime.interpreter import INTERPRETERS
from edge_runtime.options import head_packs_option, isolate_option, trusted_key_option

AT_ONCE = 8  # requests


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--address",
    metavar="[HOST:]PORT",
    default="8080",
    show_default=True,
    help="Without a host, only this machine can connect.",
)
@click.option("--token-file", type=click.Path(dir_okay=False), help="File with the token; created if it is missing.")
@head_packs_option
@click.option(
    "--interpreter",
    type=click.Choice(list(INTERPRETERS)),
    help="Interpreter that runs the file. Default: the first that is installed.",
)
@click.option("--threads", type=click.IntRange(1, 64), help="Threads of the interpreter.")
@isolate_option
@trusted_key_option
def serve(
    file: str,
    address: str,
    token_file: Optional[str],
    head_packs: Sequence[str],
    interpreter: Optional[str],
    threads: Optional[int],
    isolate: bool,
    trusted_key: Optional[str],
) -> None:
    """Classify pictures or texts over HTTP (POST /classify). /openapi.json describes the API."""
    # Imported late: the other commands open a file faster without it.
    from edge_runtime.camera.announce import Place
    from edge_runtime.camera.command import signals
    from edge_runtime.camera.lines import say
    from edge_runtime.camera.live_access import make_token, parse_address
    from edge_runtime.camera.live_server import LiveServer
    from edge_runtime.camera.vitals import notify_systemd
    from edge_runtime.describe import describe
    from edge_runtime.engine import MultiHeadClassifier
    from edge_runtime.identity import model_document, model_text
    from edge_runtime.serve.application import ServeApplication
    from edge_runtime.serve.requests import MAX_BODY

    wanted = parse_address(address)
    token = None if wanted.loopback else make_token(token_file)
    packs = head_packs or None
    stop = threading.Event()
    with MultiHeadClassifier(
        file, interpreter=interpreter, num_threads=threads, head_packs=packs, isolate=isolate, trusted_key=trusted_key
    ) as classifier:
        model = model_document(file, classifier.metadata.identity, classifier.file_digest)
        info = describe(file, classifier.metadata, packs)
        application = ServeApplication(
            classifier, model, info, token=token, loopback_only=wanted.loopback, at_once=AT_ONCE
        )
        server = LiveServer(wanted, application, threads=AT_ONCE, max_body=MAX_BODY)
        try:
            with Place(server.address, token, token_file).announced(model_text(model), say), signals(stop.set):
                notify_systemd("READY=1")
                while not stop.wait(1.0):
                    notify_systemd("WATCHDOG=1")
        finally:
            notify_systemd("STOPPING=1")
            server.stop()
