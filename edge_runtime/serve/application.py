"""The answers of ``edge-runtime serve``, as WSGI: a polyhead file for programs on the network."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union

from edge_runtime.camera.live_access import knows_token, names_loopback
from edge_runtime.camera.metrics import KIND as METRICS
from edge_runtime.camera.metrics import metric, model_metric
from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.errors import EdgeRuntimeError, PictureError, TextError
from edge_runtime.escape import printable
from edge_runtime.serve.openapi import openapi
from edge_runtime.serve.requests import RequestError, Wanted, read_request

PATHS = {"/health": "GET", "/metrics": "GET", "/info": "GET", "/openapi.json": "GET", "/classify": "POST"}
_HEADERS = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
_Start = Callable[[str, List[Tuple[str, str]]], Any]


class ServeApplication:
    """``model``: who it is, see ``identity.model_document``. ``info``: the document of ``info --json``.

    ``at_once``: requests that are read and answered at a time; the rest are told to come again, and ``/health`` never
    waits for any of them.
    """

    def __init__(
        self,
        classifier: MultiHeadClassifier,
        model: Mapping[str, Any],
        info: Mapping[str, Any],
        *,
        token: Optional[str] = None,
        loopback_only: bool = True,
        at_once: int = 8,
    ) -> None:
        self._classifier, self._model, self._info = classifier, dict(model), dict(info)
        self._token, self._loopback_only = token, loopback_only
        self._openapi = openapi(classifier, token is not None)
        self._room = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._answered: Counter[str] = Counter()  # by status
        self._samples, self._seconds = 0, 0.0

    def __call__(self, environ: Dict[str, Any], start: _Start) -> Iterable[bytes]:
        begun = time.perf_counter()
        try:
            status, kind, body = self._answer(environ)
        except RequestError as error:
            status, kind, body = error.status, "application/json", _json({"error": str(error)})
        with self._lock:
            self._answered[status[:3]] += 1
            self._seconds += time.perf_counter() - begun
        start(status, [*_HEADERS, ("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, environ: Dict[str, Any]) -> Tuple[str, str, bytes]:
        """Status, content type and body. Raises ``RequestError``."""
        path = environ.get("PATH_INFO") or "/"
        if self._loopback_only and not names_loopback(environ.get("HTTP_HOST", "")):
            raise RequestError("403 Forbidden", "this server is for this machine only: use 127.0.0.1 or localhost")
        if path != "/health" and self._token is not None and not knows_token(environ, self._token):
            raise RequestError("401 Unauthorized", "a token is needed: Authorization: Bearer TOKEN")
        if path not in PATHS:
            raise RequestError("404 Not Found", f"there are {', '.join(PATHS)}")
        if environ["REQUEST_METHOD"] not in (PATHS[path], "HEAD" if PATHS[path] == "GET" else ""):
            raise RequestError("405 Method Not Allowed", f"{path} takes {PATHS[path]}")
        if path == "/metrics":
            return "200 OK", METRICS, self._metrics()
        documents = {"/health": {"status": "ok"}, "/info": self._info, "/openapi.json": self._openapi}
        document = documents[path] if path in documents else self._classify(environ)
        return "200 OK", "application/json", _json(document)

    def _classify(self, environ: Mapping[str, Any]) -> Dict[str, Any]:
        if not self._room.acquire(blocking=False):
            raise RequestError("503 Service Unavailable", "too many requests at once; come again")
        try:
            wanted = read_request(environ, self._classifier.head_names)
            results = [self._one(sample, wanted) for sample in wanted.samples]
        except EdgeRuntimeError as error:  # of the request as a whole: a head, a threshold, a text for a file of pictures
            raise RequestError("400 Bad Request", str(error)) from error
        finally:
            self._room.release()
        with self._lock:
            self._samples += len(results)
        return {"model": self._model, "results": results}

    def _one(self, sample: Union[bytes, str], wanted: Wanted) -> Dict[str, Any]:
        """The result as ``classify --json`` prints it, or the error of a sample that cannot be read."""
        options: Dict[str, Any] = {
            "heads": wanted.heads, "top_k": wanted.top_k, "joint": wanted.joint, "threshold": wanted.threshold
        }  # fmt: skip
        try:
            if isinstance(sample, str):
                return self._classifier.classify_text(sample, **options).to_dict()
            return self._classifier.classify(sample, **options).to_dict()
        except (PictureError, TextError) as error:
            return {"error": str(error)}

    def _metrics(self) -> bytes:
        with self._lock:
            answered, samples, seconds = dict(self._answered), self._samples, self._seconds
        lines = [*model_metric(self._model), "# TYPE edge_runtime_requests_total counter"]
        lines += [
            f'edge_runtime_requests_total{{status="{status}"}} {count}' for status, count in sorted(answered.items())
        ]
        lines += metric("edge_runtime_samples_total", "counter", samples)
        lines += metric("edge_runtime_request_seconds_total", "counter", f"{seconds:.6f}")
        return ("\n".join(lines) + "\n").encode()


def _json(document: Any) -> bytes:
    return printable(json.dumps(document, ensure_ascii=False)).encode()
