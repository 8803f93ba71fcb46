"""Find which models could become heads of a finished file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.growing.finished import read_finished
from builder.growing.same_backbone import as_in, cut, with_its_backbone
from builder.merging.entering import read_said
from builder.reading.picture_input import PictureSourceInput
from builder.reading.reader import Reader
from builder.settings.config import ReadConfig
from builder.settings.heads import HeadConfig
from builder.support.errors import NoSharedBackboneError
from edge_runtime.text import TextInput


@dataclass(frozen=True)
class Fit:
    """``pixels``: the input scaling in words. ``parameters``: of the head. ``reason``: why it does not fit; empty if it
    does.
    """

    path: Path
    pixels: str
    parameters: int
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.reason:
            return {"path": str(self.path), "fits": False, "reason": self.reason}
        return {"path": str(self.path), "fits": True, "input": self.pixels, "head_parameters": self.parameters}


def fits(path: Path, models: Sequence[HeadConfig], settings: ReadConfig) -> list[Fit]:
    """Whether the base of each model is that of the finished file at ``path``. Raises ``ModelFileError``."""
    file = read_finished(path)
    reader = Reader(
        allow_code=settings.allow_code,
        limits=settings.limits,
        inference_mode=settings.inference_mode,
        text_length=file.metadata.input.length if isinstance(file.metadata.input, TextInput) else None,
    )
    found = []
    for config in models:
        model, classifier = config.model, read_said(reader, config, None)
        try:
            source_input = classifier.source_input
            if isinstance(source_input, PictureSourceInput) and source_input.unsaid:
                classifier = replace(classifier, source_input=as_in(file, classifier, source_input))
            classifier = with_its_backbone(classifier, file)
        except NoSharedBackboneError as error:
            found.append(Fit(model, "", 0, str(error).removeprefix(f"{model}: ")))
            continue
        nodes = cut(classifier, file)[1]
        own = sum(classifier.graph.nodes[i].parameters for i in nodes)
        found.append(Fit(model, str(classifier.source_input), own))
    return found
