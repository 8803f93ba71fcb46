"""Model files -> classifiers: a graph with digests, labels, input scaling and the original's answers.

In: the path of a model, and the user's settings for it. Out: ``Classifier``. Read ``reader.py`` first.
"""
