"""From labelled pictures or texts to a classifier on a frozen base. Read ``train.py`` first."""
