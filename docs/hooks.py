"""What mkdocs fills in from the code, so that it cannot fall behind: tables in place of ``<!-- table: NAME -->``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from builder.settings.config import BuildConfig
from builder.settings.input_scaling import PREPROCESSING
from builder.settings.reference import Setting, all_settings

# The word for each module of keras.applications, whose ``preprocess_input`` it is.
KERAS_PREPROCESSING = {
    "convnext": ("raw", "ConvNeXt"),
    "efficientnet": ("raw", "EfficientNetB0 to B7"),
    "efficientnet_v2": ("raw", "EfficientNetV2"),
    "mobilenet_v3": ("raw", "MobileNetV3Small, MobileNetV3Large"),
    "inception_resnet_v2": ("tf", "InceptionResNetV2"),
    "inception_v3": ("tf", "InceptionV3"),
    "mobilenet": ("tf", "MobileNet"),
    "mobilenet_v2": ("tf", "MobileNetV2"),
    "nasnet": ("tf", "NASNetMobile, NASNetLarge"),
    "resnet_v2": ("tf", "ResNet50V2, ResNet101V2, ResNet152V2"),
    "xception": ("tf", "Xception"),
    "densenet": ("torch", "DenseNet121, DenseNet169, DenseNet201"),
    "resnet": ("caffe", "ResNet50, ResNet101, ResNet152"),
    "vgg16": ("caffe", "VGG16"),
    "vgg19": ("caffe", "VGG19"),
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs for every page."""
    return re.sub(r"<!-- table: (\w+) -->", lambda found: TABLES[found[1]](), markdown)


def settings_table() -> str:
    """A row for each key of the TOML file."""
    rows = [(f"`{key}`", setting.help, setting.expected, _default(setting)) for key, setting in all_settings(BuildConfig)]
    return _table(("key", "what", "a value is", "without it"), rows)


def preprocessing_table() -> str:
    """A row for each base of keras.applications."""
    words: dict[str, list[str]] = {}
    for module, (word, models) in KERAS_PREPROCESSING.items():
        words.setdefault(word, []).append(f"{models} (`{module}`)")
    rows = [(f'`"{word}"`', str(PREPROCESSING[word]), "; ".join(found)) for word, found in words.items()]
    return _table(("`preprocessing`", "the model sees", "bases of `keras.applications`"), rows)


def _default(setting: Setting) -> str:
    if setting.required:
        return "an error"
    value = setting.default
    if value is None or setting.table is not None or isinstance(value, Path):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cell.translate(ESCAPED) for cell in line)} |" for line in lines)


ESCAPED = str.maketrans({"|": "&#124;", "{": "&#123;", "}": "&#125;"})  # what a table and attr_list take for their own
TABLES: dict[str, Callable[[], Any]] = {"settings": settings_table, "preprocessing": preprocessing_table}
