"""The original files, run by their own frameworks in processes of their own: the truth that everything is judged by.

In: a model file that was read. Out: its raw answers, float32. Read ``original.py`` first.
"""
