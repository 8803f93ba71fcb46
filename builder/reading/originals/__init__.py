"""Run the original files by their own frameworks in separate processes: the reference that everything is compared with.

In: a model file that was read. Out: its raw outputs, float32. Read ``original.py`` first.
"""
