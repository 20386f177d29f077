"""A CUDA emulator: g++ compiles the kernels, and a CPU runs them."""
