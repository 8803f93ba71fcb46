"""The libraries whose classes a configuration may name besides Keras's own: KerasHub and KerasCV.

Their files hold settings and weights and no layers. Nothing is imported because a file names it: only a package listed
here is, in the process of the original, and only for a file with classes of the modules listed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Library:
    """``modules``: those that a file may name, with every class in them. ``install``: what installs the library."""

    package: str
    title: str
    modules: re.Pattern[str]
    install: str

    def has(self, module: str | None, kind: str, registered: str | None) -> bool:
        """Whether a configuration's class is one of the listed; Keras looks for the registered name first."""
        own = registered is None or re.fullmatch(rf"{self.package}(\.models|\.layers)?>{re.escape(kind)}", registered)
        return bool(own and module and self.modules.fullmatch(module) and re.fullmatch(r"[A-Z]\w*", kind))


LIBRARIES = (
    Library(
        "keras_hub",
        "KerasHub",
        re.compile(
            r"keras_hub\.src\.(models\.(image_classifier|image_classifier_preprocessor|(cspnet|deit|densenet|dinov2|"
            r"efficientnet|hgnetv2|mit|mobilenet|mobilenetv5|resnet|swin_transformer|vgg|vit|xception)\.\w+)|"
            r"layers\.preprocessing\.image_converter)"
        ),
        "pip install 'polyhead[hub]'",
    ),
    Library(
        "keras_cv",
        "KerasCV",
        re.compile(r"keras_cv(\.src)?\.models\.(classification\.image_classifier|backbones\.\w+\.\w+_backbone)"),
        "pip install keras-cv",
    ),
)  # fmt: skip


def library_of(module: Any, kind: Any, registered: Any) -> Library | None:
    """The library whose listed modules have a class, which a configuration names; None for any other class."""
    return next((library for library in LIBRARIES if library.has(module, kind, registered)), None)
