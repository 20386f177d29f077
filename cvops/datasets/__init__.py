"""Data sets: readers, writers and made data; ``cvops.data`` and ``cvops.voc`` are public."""
