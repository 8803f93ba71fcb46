"""Devices by name, the interpreter that installs on each, and the TensorFlow Lite version that it has."""

from __future__ import annotations

from dataclasses import dataclass

from builder.support.errors import TargetError


@dataclass(frozen=True)
class Target:
    """One kind of device.

    Attributes:
        system: Its operating system or processor.
        python: The versions of Python there.
        interpreter: The interpreter package that installs there.
        runtime: The version of TensorFlow Lite in that package, (major, minor).
        profile: The operator times there, one of ``boards.profile.names_built_in``; None where they are not known.
    """

    system: str
    python: str
    interpreter: str
    runtime: tuple[int, int]
    profile: str | None = None


# LiteRT has version numbers of its own since it left TensorFlow: ai-edge-litert 1.0 came after TensorFlow 2.17.
_LITERT = (2, 18)
TARGETS = {
    "trixie": Target("Raspberry Pi OS Trixie, 64 bit", "3.13", "ai-edge-litert 2.3.0", _LITERT),
    "bookworm": Target("Raspberry Pi OS Bookworm, 64 bit", "3.11", "ai-edge-litert 2.3.0", _LITERT),
    "bookworm32": Target("Raspberry Pi OS Bookworm, 32 bit", "3.11", "tflite-runtime 2.14.0", (2, 14)),
    "bullseye": Target("Raspberry Pi OS Bullseye, 64 bit", "3.9", "ai-edge-litert 2.1.0", _LITERT),
    "coral": Target("Coral Dev Board, Mendel", "3.7", "tflite-runtime 2.11.0", (2, 11), "cortex-a53"),
    "cortex-a53": Target("Cortex-A53 (Pi 3, Zero 2 W)", "3.9 and newer", "ai-edge-litert", _LITERT, "cortex-a53"),
    "cortex-a72": Target("Cortex-A72 (Pi 4)", "3.9 and newer", "ai-edge-litert", _LITERT, "cortex-a72"),
    "cortex-a76": Target("Cortex-A76 (Pi 5)", "3.9 and newer", "ai-edge-litert", _LITERT, "cortex-a76"),
}


def check_target(name: str, min_runtime: tuple[int, int], newest: str) -> None:
    """Check that a file runs on a device.

    Args:
        name: A key of ``TARGETS``.
        min_runtime: The oldest TensorFlow Lite that runs the file, (major, minor).
        newest: The operator that needs it, for the message.

    Raises:
        TargetError: The interpreter of the device is older.
    """
    target = TARGETS[name]
    if min_runtime > target.runtime:
        needed = ".".join(map(str, min_runtime))
        raise TargetError(
            f"target {name}: {target.system} has {target.interpreter}, and {newest} needs TensorFlow Lite {needed}; "
            "choose another precision or another layer"
        )
