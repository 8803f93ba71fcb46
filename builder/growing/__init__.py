"""Heads come to a finished file, leave it, and get other names; the others answer as before.

In: a finished file. Out: another one. Read ``grow.py`` first.
"""
