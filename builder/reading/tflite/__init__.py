"""A ``.tflite`` file from any tool -> ``Classifier``. Needs no TensorFlow.

- ``file.py``: checks the file.
- ``constants.py``: constants of any precision as float32.
- ``operators.py``: the file's operators as a graph.
- ``forms.py``: the canonical form of operators.
- ``pixels.py``: the input scaling.
- ``digests.py``: digests of tensors.
- ``beside.py``: labels and input scaling that come with the file.
- ``original.py``: runs the file in a separate process.
- ``classifier.py``: puts it all together.
"""
