"""The extra of the package that installs a missing library."""

from __future__ import annotations

EXTRAS = {
    "builder": (
        "ai_edge_litert", "flatbuffers", "h5py", "jinja2", "keras", "litert_quantizer", "matplotlib", "pydantic", "rich",
        "scipy", "sklearn", "tensorflow", "tf_keras", "threadpoolctl", "tomli",
    ),
    "cluster": ("pyarrow", "ray"),
    "sign": ("cryptography",),
    "web": ("cheroot", "segno"),
}  # fmt: skip


def extra_for(error: ImportError) -> tuple[str, str] | None:
    """The library that could not be imported, and its extra; None where no extra has it."""
    library = (error.name or "").partition(".")[0]
    return next(((library, extra) for extra, libraries in EXTRAS.items() if library in libraries), None)


def needs(command: str, library: str, extra: str) -> str:
    """The message for a command that cannot run."""
    return f"{command} needs {library}, which is not installed here: pip install 'polyhead[{extra}]'"
