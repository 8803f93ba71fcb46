"""Export a finished file for other clients: MediaPipe Tasks, Edge TPU, TensorFlow Serving.

In: a finished file or a merged model. Out: files in their formats. Read ``export.py`` first.
"""
