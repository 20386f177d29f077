"""Executors, which run the implementations of ops on a CPU or a GPU, and their compiled code."""
