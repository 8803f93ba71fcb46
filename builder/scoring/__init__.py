"""Millions of pictures or texts through a finished file, to Parquet, on Ray. No TensorFlow is needed.

A source (folder, glob, column of a table) goes in; a folder of Parquet files comes out, one for each block of samples.
Read ``run.py`` first: plan what is to be scored, score what is not there yet, count.
"""
