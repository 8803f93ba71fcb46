"""The commands of ``edge-runtime``; each module is imported when one of its commands is called."""
