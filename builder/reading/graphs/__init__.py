"""A SavedModel without layers (``model.export()``, Lobe, Custom Vision, ...) -> ``Classifier``: a graph of TensorFlow.

- ``allowed.py``: the operators that it may hold.
- ``file.py``: the part that computes the scores, and the values of its variables; TensorFlow loads nothing for it.
- ``classifier.py``: converts it to ``.tflite`` in another process and reads the result.
"""
