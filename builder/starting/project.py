"""Teachable Machine's ``project.tm``, a zip archive of the pictures it was trained on -> folders of pictures."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from builder.reading.formats.limits import check_archive, read_member
from builder.support.errors import SamplesError
from edge_runtime.errors import reason

PROJECT = "project.tm"
_PICTURE = re.compile(r"(?P<label>.+)-!-(?P<number>\d{1,6})\.(?P<kind>jpg|jpeg|png|webp)", re.IGNORECASE)


def unpack(project: Path, folder: Path) -> int:
    """Write the pictures to ``folder/LABEL/NUMBER.jpg``; existing ones stay. Returns their number.

    Raises ``SamplesError``.
    """
    try:
        with zipfile.ZipFile(project) as archive:
            check_archive(archive, project)
            found = [(name, match) for name in archive.namelist() if (match := _PICTURE.fullmatch(name))]
            for name, match in found:
                label = re.sub(r"[^\w\- ]", "_", match["label"]).strip() or "_"
                place = folder / label / f"{int(match['number'])}.{match['kind'].lower()}"
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(read_member(archive, name, project))
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise SamplesError(f"{project}: expected Teachable Machine's project, a zip archive ({reason(error)})") from error
    return len(found)
