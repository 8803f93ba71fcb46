"""What the user chose.

In: a TOML file or the command line. Out: ``BuildConfig``. Read ``config.py`` first.
"""
