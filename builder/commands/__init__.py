"""The command line: parse, build one config, call one function, print. Read ``cli.py`` first."""
