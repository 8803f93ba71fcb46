"""A ``.tflite`` file, whatever made it -> ``Classifier``. Needs no TensorFlow.

- ``file.py``: what is refused.
- ``constants.py``: numbers of any precision as float32.
- ``operators.py``: the file's operators as a graph.
- ``forms.py``: one form for what is one function.
- ``pixels.py``: what happens to pixels in front.
- ``digests.py``: what a tensor is, by content.
- ``beside.py``: labels and input scaling that come with it.
- ``original.py``: the file run in a process of its own.
- ``classifier.py``: all of it.
"""
