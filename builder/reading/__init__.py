"""Model files -> classifiers: a graph with digests, labels, input scaling and the original's answers.

In: the path of a model, what the user says of it. Out: ``Classifier``. Read ``reader.py`` first.
"""
