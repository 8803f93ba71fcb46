"""Float file -> integers: ranges, learnt rounding, mixed precision, and the noise of each operator.

In: a float ``.tflite`` and representative data. Out: its subgraphs in another precision. Read ``quantize.py`` first.
"""
