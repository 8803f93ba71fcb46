"""One family of errors; each also derives from the builtin that fits."""


class EdgeRuntimeError(Exception):
    """What the user gave cannot be used; the message says what was expected, what was found, what to do."""


class BundleError(EdgeRuntimeError, ValueError):
    """The file is not a polyhead file, is damaged, or contradicts itself."""


class PictureError(EdgeRuntimeError, ValueError):
    """The picture cannot be read, or is too large to read safely."""


class TextError(EdgeRuntimeError, ValueError):
    """What was given is no text."""


class UnknownHeadError(EdgeRuntimeError, LookupError):
    """A head was asked for that the file does not have."""


class InterpreterError(EdgeRuntimeError, RuntimeError):
    """No interpreter is installed, or it refuses the file."""


class SourceError(EdgeRuntimeError, OSError):
    """A camera, stream, video or folder cannot be opened, or stopped giving pictures."""
