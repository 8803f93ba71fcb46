"""The command line: parse the options, make one config, call one function, print. Read ``cli.py`` first."""
