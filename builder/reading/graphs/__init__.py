"""A SavedModel without layers (``model.export()``, Lobe, Custom Vision, ...) -> ``Classifier``: a graph of TensorFlow.

- ``allowed.py``: the operators that it may hold.
- ``file.py``: what of it gives the scores, and the values of its variables; TensorFlow has loaded nothing by then.
- ``classifier.py``: converted to ``.tflite`` in another process and read as such.
"""
