"""Synthetic specimens with known truth."""
