"""Add, replace, remove and rename heads of a finished file; the other heads answer as before.

In: a finished file. Out: a changed one. Read ``grow.py`` first.
"""
