"""``/metrics``: numbers of a page or a server in the text format that Prometheus reads."""

from __future__ import annotations

from typing import Any, List, Mapping

KIND = "text/plain; version=0.0.4; charset=utf-8"
_COUNTERS = ("answered", "captured", "dropped", "broken", "blank")
_GAUGES = ("fps", "temperature")


def metrics_text(state: Mapping[str, Any]) -> bytes:
    """Return the metrics of a document of ``/state.json``."""
    lines: List[str] = []
    if "identity" in state:
        lines += model_metric(state["identity"])
    for name in _COUNTERS:
        if name in state:
            lines += metric(f"edge_runtime_frames_{name}_total", "counter", state[name])
    for name in _GAUGES:
        if state.get(name) is not None:
            lines += metric(f"edge_runtime_{name}", "gauge", state[name])
    if "connected" in state:
        lines += metric("edge_runtime_camera_connected", "gauge", int(state["connected"]))
    for part, milliseconds in state.get("latency_ms", {}).items():
        lines.append(f'edge_runtime_latency_seconds{{part="{escaped(part)}"}} {milliseconds / 1000:.6f}')
    return ("\n".join(lines) + "\n").encode()


def model_metric(identity: Mapping[str, Any]) -> List[str]:
    """The model as labels of a metric that is always 1, as is usual for what is no number."""
    labels = ",".join(f'{key}="{escaped(identity[key] or "")}"' for key in ("name", "version", "digest"))
    return ["# TYPE edge_runtime_model_info gauge", f"edge_runtime_model_info{{{labels}}} 1"]


def metric(name: str, kind: str, value: Any) -> List[str]:
    """One number with its type."""
    return [f"# TYPE {name} {kind}", f"{name} {value}"]


def escaped(text: str) -> str:
    """Return the text escaped as the value of a label."""
    return str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
