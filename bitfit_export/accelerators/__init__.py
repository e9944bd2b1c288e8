"""Accelerators with a compiler of their own: their chips and libraries, for compiler and runtime."""
