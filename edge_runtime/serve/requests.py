"""Parse and check a request; none of its content is trusted."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union
from urllib.parse import parse_qs

MAX_BATCH = 64  # samples of one request
MAX_BODY = 32 << 20  # bytes
Head = Union[str, int]
_KEYS = ("pictures", "texts", "heads", "top_k", "joint", "threshold")


class RequestError(Exception):
    """``status``: as HTTP has it."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Wanted(NamedTuple):
    """``samples``: encoded pictures or texts, as ``texts`` says."""

    samples: Tuple[Union[bytes, str], ...]
    texts: bool
    heads: Optional[Tuple[Head, ...]] = None
    top_k: Optional[int] = None
    joint: bool = False
    threshold: Union[float, Mapping[str, float], None] = None


def read_request(environ: Mapping[str, Any], head_names: Sequence[str]) -> Wanted:
    """A picture as it is, its options behind the address, or JSON. Raises ``RequestError``."""
    body = _body(environ)
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _of_json(body)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return _checked(_of_query(environ.get("QUERY_STRING", ""), head_names), (body,), texts=False)
    found = repr(kind) if kind else "nothing"
    raise RequestError("415 Unsupported Media Type", f"expected application/json or image/..., found {found}")


def _bad(message: str) -> RequestError:
    return RequestError("400 Bad Request", message)


def _body(environ: Mapping[str, Any]) -> bytes:
    if "HTTP_TRANSFER_ENCODING" in environ:  # a proxy and this server might disagree on where it ends
        raise RequestError("411 Length Required", "expected a body with Content-Length, not one in chunks")
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not 0 < length <= MAX_BODY:
        raise _bad(f"expected a body of 1 to {MAX_BODY} bytes, found {length}")
    body: bytes = environ["wsgi.input"].read(length)
    if len(body) < length:
        raise RequestError("408 Request Timeout", f"expected a body of {length} bytes, found {len(body)}")
    return body


def _of_json(body: bytes) -> Wanted:
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is no JSON document ({error})") from error
    if not isinstance(document, dict) or set(document) - set(_KEYS) or ("pictures" in document) == ("texts" in document):
        keys = ", ".join(_KEYS[2:])
        raise _bad(f"expected an object with pictures or texts, and at most {keys}")
    texts = "texts" in document
    given = document["texts" if texts else "pictures"]
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise _bad("expected a list of strings: texts, or pictures in base64")
    if not 0 < len(given) <= MAX_BATCH:
        raise _bad(f"expected 1 to {MAX_BATCH} samples, found {len(given)}")
    return _checked(document, given if texts else [_decoded(item) for item in given], texts=texts)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"a picture is not base64 ({error})") from error


def _of_query(query: str, head_names: Sequence[str]) -> Dict[str, Any]:
    """``head=NAME`` or an index, repeated; ``top_k=3``; ``joint=1``; ``threshold=0.5``."""
    given = parse_qs(query)
    given.pop("token", None)
    unknown = set(given) - {"head", "top_k", "joint", "threshold"}
    if unknown:
        raise RequestError(
            "400 Bad Request", f"unknown {', '.join(sorted(unknown))}; expected head, top_k, joint, threshold"
        )
    heads = [int(h) if h.isdecimal() and len(h) < 8 and h not in head_names else h for h in given.get("head", [])]
    found: Dict[str, Any] = {"heads": heads or None, "joint": given.get("joint", ["0"])[-1] in ("1", "true")}
    for key, kind in (("top_k", int), ("threshold", float)):
        try:
            found[key] = kind(given[key][-1]) if key in given else None
        except ValueError as error:
            raise _bad(f"{key}: expected a number, found {given[key][-1]!r:.40}") from error
    return found


def _checked(document: Mapping[str, Any], samples: Sequence[Union[bytes, str]], *, texts: bool) -> Wanted:
    heads, top_k, joint = document.get("heads"), document.get("top_k"), document.get("joint", False)
    if heads is not None and not (_is_list(heads) and heads):
        raise _bad("heads: expected a list of names or indices")
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1):
        raise _bad("top_k: expected a whole number from 1 on")
    if not isinstance(joint, bool):
        raise _bad("joint: expected true or false")
    threshold = document.get("threshold")
    if threshold is not None and not joint:
        raise _bad("threshold belongs to the joint list; ask for joint too")
    if not (threshold is None or _is_number(threshold) or _is_table(threshold)):
        raise _bad("threshold: expected a number, or numbers by the names of heads")
    return Wanted(tuple(samples), texts, None if heads is None else tuple(heads), top_k, joint, threshold)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, (str, int)) and not isinstance(v, bool) for v in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
