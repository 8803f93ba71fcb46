"""``edge-runtime serve``: ``requests`` reads what is asked for, ``application`` answers, ``openapi`` describes both."""
