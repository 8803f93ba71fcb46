"""Run a finished file on millions of pictures or texts, on Ray, with results in Parquet. TensorFlow is not needed.

In: a source (folder, glob, column of a table). Out: a folder of Parquet files, one for each block of samples. Read
``run.py`` first: plan what to score, score what is missing, count.
"""
