"""Run a finished file and compare it with its originals, or with labelled pictures.

In: a file and samples. Out: ``Quality`` or ``Evaluation``. Read ``verify.py`` first.
"""
