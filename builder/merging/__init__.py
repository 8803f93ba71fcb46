"""N classifiers -> one float file: find the shared backbone, check it by running it, and split off each head.

In: ``Classifier`` objects. Out: ``MergedModel``, and a float ``.tflite`` with a subgraph for the backbone and for each
head. Read ``backbone.py`` first.
"""
