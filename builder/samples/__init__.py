"""Pictures and texts in folders -> calibration samples and held-out verification samples.

In: folders. Out: ``SampleSet``. Read ``calibration.py`` first.
"""
