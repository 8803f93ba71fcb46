"""Classify what a camera sees with every head of a file: python examples/camera.py build/demo.tflite 0

The source is whatever ``edge-runtime camera --source`` takes: picamera2, 0, a folder, a video, an address.
"""

import sys
from time import localtime, strftime

from edge_runtime import EdgeRuntimeError, MultiHeadClassifier
from edge_runtime.camera import Camera


def main(model: str, source: str = "auto", *heads: str) -> None:
    # ``heads`` as in: door plants:every=30,threshold=0.8
    with MultiHeadClassifier(model) as classifier, Camera(classifier, source, heads=heads, report=print) as camera:
        for seen in camera:
            for event in seen.events:  # only when an answer changes
                when = strftime("%H:%M:%S", localtime(event.time))
                print(f"{when}  {event.head_name}: {event.category_name or 'not sure'} ({event.score:.2f})")
        print(camera.counts)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except (EdgeRuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
