"""N classifiers -> one float file: the shared backbone is found, checked by running, and each head is cut off.

In: ``Classifier`` objects. Out: ``MergedModel``, and a float ``.tflite``, a subgraph each. Read ``backbone.py`` first.
"""
