"""What a command did, for a person and for a program: terminal, JSON, HTML pages.

In: results. Out: text. Read ``report.py`` first; ``summary.py`` prints it, ``report_files.py`` writes it.
"""
