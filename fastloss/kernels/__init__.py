"""What Numba compiles. Imported when the first kernel is needed, never with the package."""
