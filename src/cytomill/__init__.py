"""Microscopy campaigns under MPI: segmented, measured and reported, resumable block by block."""

__version__ = "0.1.0"
