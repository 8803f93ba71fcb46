"""HTML pages: autoescaping templates, and pictures as inline elements. A page loads nothing from elsewhere."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

THUMBNAIL = 132  # pixels, as in the stylesheet
_TEMPLATES = Environment(
    loader=PackageLoader("builder.reporting"),
    autoescape=True,  # names, labels and texts come from untrusted files
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """Render a page from a file in ``templates/``. Every value is escaped unless ``plot`` or ``inline`` made it."""
    return _TEMPLATES.get_template(template).render(**values)


def inline(data: bytes, kind: str, alt: str) -> Markup:
    """An ``img`` element that holds a picture's bytes; ``kind``: its type, such as ``png``."""
    encoded = base64.b64encode(data).decode()
    return Markup('<img alt="{}" src="data:image/{};base64,{}">').format(alt, kind, encoded)
