"""The user's settings.

In: a TOML file or command-line options. Out: ``BuildConfig``. Read ``config.py`` first.
"""
