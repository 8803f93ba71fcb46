"""What the pages share: their templates, and how a plot or a picture becomes an element. A page fetches nothing."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

matplotlib.use("Agg")
from matplotlib import pyplot as plt

BLUE, RED, GREY = "#2a6f97", "#c1440e", "#8d99a6"
THUMBNAIL = 132  # pixels, as in the style
_TEMPLATES = Environment(
    loader=PackageLoader("builder.reporting"),
    autoescape=True,  # names, labels and texts come from files of others
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A whole page from a file in ``templates/``. Every value is escaped, unless ``plot`` or ``inline`` made it."""
    return _TEMPLATES.get_template(template).render(**values)


def tidy(figure: Any) -> Any:
    """``figure`` without the frame's upper and right side, nothing overlapping."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def plot(figure: Any, alt: str) -> Markup:
    """A plot as an element, its background transparent for the dark mode; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, transparent=True)
    plt.close(figure)
    return Markup('<div class="wide"><div class="plot">{}</div></div>').format(inline(buffer.getvalue(), "png", alt))


def inline(data: bytes, kind: str, alt: str) -> Markup:
    """A picture's bytes as an element."""
    encoded = base64.b64encode(data).decode()
    return Markup('<img alt="{}" src="data:image/{};base64,{}">').format(alt, kind, encoded)
