"""Everything that knows the TensorFlow Lite schema: subgraphs read, run, joined and written.

In and out: ``Part``, one subgraph as plain data, and bytes. Read ``flatbuffer.py`` first.
"""
