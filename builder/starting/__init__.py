"""A folder of downloads and model files -> a TOML file to build from.

In: a folder of downloads and model files. Out: ``init.py``'s ``Start``. Read ``init.py`` first.
"""
