"""Head packs: a head in a separate file."""

from __future__ import annotations

from dataclasses import replace

from builder.tflite.flatbuffer import Part, quantization
from builder.tflite.names import with_names
from builder.tflite.versions import min_runtime
from builder.tflite.writer import write_parts
from edge_runtime.metadata import HeadInfo, HeadPack, Metadata


def head_pack(main: Metadata, info: HeadInfo, part: Part) -> tuple[bytes, HeadPack]:
    """The flatbuffer and the members of a pack for a file with the members ``main``."""
    model = write_parts({info.head_name: with_names(part)}, f"polyhead: head {info.head_name} for a backbone")
    runtime, _ = min_runtime([part])
    figures = main.quality.get("heads", {}).get(info.head_name)
    return model, HeadPack(
        head=replace(info, bytes=len(model)),
        backbone_digest=main.backbone_digest,
        seam=tuple(tensor for tensor in main.seam if tensor.name in part.inputs),
        scores=quantization(part.tensors[part.outputs["scores"]]),
        model_bytes=len(model),
        min_runtime=max(runtime, main.min_runtime),
        quality={} if figures is None else {"heads": {info.head_name: figures}},
        built={key: value for key, value in main.built.items() if isinstance(value, str)},
    )
