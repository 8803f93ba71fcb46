"""Run ``edge-runtime camera`` for hundreds of thousands of frames, and record the resources of its process.

    python -m tests.device_files build/device-files
    python -m benchmarks.soak build/device-files/three.tflite --frames 200000 --output build/soak

A network camera in this process sends small JPEGs as fast as they are read. It truncates one in a thousand and closes the
connection every 30,000. Viewers of the live page come and go all the time, and one viewer never reads. The model is
replaced every half minute. Resident memory, descriptors and threads are read from ``/proc`` every second. Use a small
model, so that the code around it runs often. Writes ``soak.json`` and ``soak.png``.
"""

from __future__ import annotations

import argparse
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TORN_EVERY, HANG_UP_EVERY = 1000, 30_000  # frames
RELOAD_EVERY, VIEWER_EVERY, SAMPLE_EVERY = 30.0, 0.2, 1.0  # seconds
BOUNDARY = b"frame"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--output", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    samples = soak(options.file, options.frames, options.output)
    document = {"command": sys.argv, "summary": summary(samples), "samples": samples}
    (options.output / "soak.json").write_text(json.dumps(document), "utf-8")
    plot(samples, options.output / "soak.png")
    print(json.dumps(document["summary"], indent=1))


def soak(file: Path, frames: int, folder: Path) -> list[dict[str, float]]:
    """Take a sample every second until ``frames`` frames are answered."""
    content, model, port = file.read_bytes(), folder / "model.tflite", free_port()
    model.write_bytes(content)
    camera = Camera()
    threading.Thread(target=camera.serve_forever, daemon=True).start()
    command = [sys.executable, "-m", "edge_runtime", "camera", str(model), "--json", "--lines", "frame", "--reload"]
    command += ["--source", f"http://127.0.0.1:{camera.server_address[1]}/", "--serve", str(port), "--viewers", "3"]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    try:
        hanging = hang(port)
        samples = watch(process, port, frames, lambda: replace(content, model))
        hanging.close()
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    if code:
        raise RuntimeError(f"the camera ended with exit code {code}; see {folder / 'log.txt'}")
    return samples


def watch(process: subprocess.Popen[bytes], port: int, frames: int, renew: Any) -> list[dict[str, float]]:
    samples: list[dict[str, float]] = []
    begin = time.monotonic()
    next_sample, next_model = begin, begin + RELOAD_EVERY
    while process.poll() is None:
        time.sleep(VIEWER_EVERY)
        get(port, "/stream.mjpg", 20_000)
        get(port, "/events", 5_000)
        now = time.monotonic()
        if now >= next_sample:
            next_sample = now + SAMPLE_EVERY
            state = json.loads(get(port, "/state.json") or b"{}")
            samples.append({"seconds": now - begin, **holds(process.pid), **{k: state.get(k, 0) for k in COUNTED}})
            if samples[-1]["answered"] >= frames:
                break
        if now >= next_model:
            next_model = now + RELOAD_EVERY
            renew()
    return samples


COUNTED = ("answered", "captured", "dropped", "broken")


def holds(pid: int) -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return {
        "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "descriptors": descriptors,
    }


def get(port: int, path: str, limit: int = 1 << 20) -> bytes:
    """Read at most ``limit`` bytes and close the connection, as a viewer that leaves does."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=15) as response:
            data: bytes = response.read(limit)
            return data
    except OSError:
        return b""


def hang(port: int) -> socket.socket:
    """Connect a viewer that requests the picture and never reads."""
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port))
        except OSError:
            time.sleep(0.1)
            continue
        connection.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return connection
    raise RuntimeError("the live page does not answer")


def replace(content: bytes, model: Path) -> None:
    new = model.with_suffix(".new")
    new.write_bytes(content)
    new.replace(model)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Camera(ThreadingHTTPServer):
    """An MJPEG camera without a sensor."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        rng = np.random.default_rng(0)
        self.frames = [jpeg(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(16)]


class Handler(BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}")
        self.end_headers()
        for number in range(1, HANG_UP_EVERY):
            data = self.server.frames[number // 200 % len(self.server.frames)]
            if number % TORN_EVERY == 0:
                data = data[: len(data) // 2]
            head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (BOUNDARY, len(data))
            try:
                self.wfile.write(head + data + b"\r\n")
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        pass


def jpeg(blocks: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(blocks).resize((64, 48)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def summary(samples: list[dict[str, float]]) -> dict[str, Any]:
    """The slope is of a least-squares line over the second half, when caches and pools are full."""
    half = samples[len(samples) // 2 :]
    answered, rss = (np.asarray([s[key] for s in half]) for key in ("answered", "rss_mb"))
    return {
        "frames": samples[-1]["answered"],
        "captured": samples[-1]["captured"],
        "broken": samples[-1]["broken"],
        "seconds": round(samples[-1]["seconds"], 1),
        "rss_mb_first_half_max": round(max(s["rss_mb"] for s in samples[: len(samples) // 2]), 1),
        "rss_mb_second_half_max": round(float(rss.max()), 1),
        "rss_kb_per_1000_frames_second_half": round(float(np.polyfit(answered, rss, 1)[0]) * 1024 * 1000, 2),
        "descriptors_second_half": [min(s["descriptors"] for s in half), max(s["descriptors"] for s in half)],
        "threads_second_half": [min(s["threads"] for s in half), max(s["threads"] for s in half)],
    }


def plot(samples: list[dict[str, float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), height_ratios=(2, 1))
    frames = [s["answered"] / 1000 for s in samples]
    above.plot(frames, [s["rss_mb"] for s in samples], linewidth=1)
    above.set(ylabel="resident memory, MB", ylim=(0, 1.2 * max(s["rss_mb"] for s in samples)))
    below.plot(frames, [s["descriptors"] for s in samples], linewidth=1, label="descriptors")
    below.plot(frames, [s["threads"] for s in samples], linewidth=1, label="threads")
    below.set(xlabel="frames answered, thousands", ylim=(0, None))
    below.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
