"""``/openapi.json``: what the server takes and gives, for this very file."""

from __future__ import annotations

from typing import Any, Dict

from edge_runtime.engine import MultiHeadClassifier
from edge_runtime.serve.requests import MAX_BATCH
from edge_runtime.text import TextInput

_NUMBER, _TEXT = {"type": "number", "minimum": 0, "maximum": 1}, {"type": "string"}
_CATEGORY = {
    "type": "object",
    "required": ["index", "score", "category_name"],
    "properties": {"index": {"type": "integer"}, "score": _NUMBER, "category_name": _TEXT},
}
_CATEGORIES = {"type": "array", "items": {"$ref": "#/components/schemas/Category"}}
_RESULT = {
    "type": "object",
    "description": "What `edge-runtime classify --json` prints of a sample, or why it cannot be read.",
    "properties": {
        "error": _TEXT,
        "classifications": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"head_index": {"type": "integer"}, "head_name": _TEXT, "categories": _CATEGORIES},
            },
        },
        "joint": {"type": "object", "properties": {"known": {"type": "boolean"}, "categories": _CATEGORIES}},
        "latency_ms": {"type": "object", "additionalProperties": {"type": "number"}},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["model", "results"],
    "properties": {
        "model": {"type": "object", "description": "name, version and digest of the file that answers"},
        "results": {"type": "array", "items": {"$ref": "#/components/schemas/Result"}},
    },
}
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": _TEXT}}


def openapi(classifier: MultiHeadClassifier, token: bool) -> Dict[str, Any]:
    """OpenAPI 3.1. ``token``: is one needed?"""
    texts = isinstance(classifier.metadata.input, TextInput)
    head = {"oneOf": [{"type": "string", "enum": list(classifier.head_names)}, {"type": "integer", "minimum": 0}]}
    document: Dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "edge-runtime serve", "version": classifier.metadata.identity.version or "0"},
        "paths": {
            "/classify": {"post": _classify(head, texts)},
            "/info": {"get": _get("heads, labels, input and how the file was built, as `edge-runtime info --json`")},
            "/metrics": {"get": _get("counts, for Prometheus", "text/plain")},
            "/health": {"get": {**_get("200 while the server answers"), "security": []}},
            "/openapi.json": {"get": _get("this document")},
        },
        "components": {"schemas": {"Category": _CATEGORY, "Result": _RESULT, "Answer": _ANSWER, "Error": _ERROR}},
    }
    if token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _classify(head: Dict[str, Any], texts: bool) -> Dict[str, Any]:
    key = "texts" if texts else "pictures"
    sample = _TEXT if texts else {"type": "string", "contentEncoding": "base64"}
    options = {
        "heads": {"type": "array", "minItems": 1, "items": head},
        "top_k": {"type": "integer", "minimum": 1},
        "joint": {"type": "boolean"},
        "threshold": {"oneOf": [_NUMBER, {"type": "object", "additionalProperties": _NUMBER}]},
    }
    batch = {"type": "array", "minItems": 1, "maxItems": MAX_BATCH, "items": sample}
    schema = {"type": "object", "required": [key], "additionalProperties": False, "properties": {key: batch, **options}}
    content: Dict[str, Any] = {"application/json": {"schema": schema}}
    operation: Dict[str, Any] = {
        "summary": f"classify {key}",
        "requestBody": {"required": True, "content": content},
        "responses": {"200": _reply("the answers, in the order of the samples", "Answer")},
    }
    if not texts:
        content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
        single = {**options, "head": head}
        operation["parameters"] = [
            {"name": name, "in": "query", "description": "for a picture sent as it is", "schema": single[name]}
            for name in ("head", "top_k", "joint")
        ]
    wrong = {"400": "what is wrong", "401": "no token", "413": "too large", "415": "of another kind", "503": "busy"}
    operation["responses"].update({status: _reply(words, "Error") for status, words in wrong.items()})
    return operation


def _get(words: str, kind: str = "application/json") -> Dict[str, Any]:
    return {"summary": words, "responses": {"200": {"description": words, "content": {kind: {}}}}}


def _reply(words: str, schema: str) -> Dict[str, Any]:
    return {"description": words, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
