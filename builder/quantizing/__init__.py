"""Float file -> integers: ranges, learnt rounding, mixed precision, and how exact each operator is.

In: a float ``.tflite`` and representative data. Out: its subgraphs in another precision. Read ``quantize.py`` first.
"""
