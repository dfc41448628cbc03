"""Radial partitioning of the cytoplasm, from the nuclear envelope to the plasma membrane."""
