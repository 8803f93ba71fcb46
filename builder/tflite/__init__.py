"""Everything that knows the TensorFlow Lite schema: reads, runs, joins and writes subgraphs.

In and out: ``Part`` (one subgraph as plain data) and the bytes of files. Read ``flatbuffer.py`` first.
"""
