"""Backends: the threads and the compiled extension on the CPU, NVRTC and launches on GPUs."""
