"""One family of errors, each of which also derives from the builtin that fits; and what an error says."""

import os


class EdgeRuntimeError(Exception):
    """The user's input cannot be used; the message says what was expected, what was found and what to do."""


class BundleError(EdgeRuntimeError, ValueError):
    """The file is not a polyhead file, is damaged, or contradicts itself."""


class PictureError(EdgeRuntimeError, ValueError):
    """The picture cannot be read, or is too large to read safely."""


class TextError(EdgeRuntimeError, ValueError):
    """The input is not a text."""


class UnknownHeadError(EdgeRuntimeError, LookupError):
    """A head was asked for that the file does not have."""


class InterpreterError(EdgeRuntimeError, RuntimeError):
    """No interpreter is installed, or it refuses the file."""


class SourceError(EdgeRuntimeError, OSError):
    """A camera, stream, video or folder cannot be opened, or stopped giving pictures."""


def said(error: BaseException) -> str:
    """What an error says, in one line; of one of the system's the file and the reason, without its number."""
    name = error.filename if isinstance(error, OSError) and error.strerror else None
    start = "" if name is None else "{}: ".format(os.fsdecode(name) if isinstance(name, (str, bytes)) else name)
    return start + reason(error)


def reason(error: BaseException) -> str:
    """As ``said``, where the file is named already."""
    system = error.strerror if isinstance(error, OSError) else None
    return " ".join((system or str(error)).split())
