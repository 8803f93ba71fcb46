"""Pictures and texts in folders -> representative data, and what is held out for verification.

In: folders. Out: ``SampleSet``. Read ``calibration.py`` first.
"""
