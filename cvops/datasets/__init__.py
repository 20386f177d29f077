"""Data sets: readers, writers, made data. ``classification``, ``data`` and ``voc`` are public."""
