"""What ``edge-runtime`` can do; each module is imported when one of its commands is asked for."""
