"""Disjoint sets: which provisional labels are one.

The root of a set is its smallest member, so that the result does not depend on the order of unions.
"""

from __future__ import annotations

from numba import njit


@njit(nogil=True, cache=True)
def find(parent, item):
    """Return the root of `item`, halving the path to it.

    Parameters
    ----------
    parent : (N,) integer ndarray
        Parent of each item; a root is its own.
    item : int
        Index into `parent`.
    """
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@njit(nogil=True, cache=True)
def union(parent, first, second):
    """Make one set of the sets of two items; the smaller root stays."""
    first, second = find(parent, first), find(parent, second)
    if first < second:
        parent[second] = first
    elif second < first:
        parent[first] = second


@njit(nogil=True, cache=True)
def flatten(parent):
    """Point every item at its root, in place."""
    for item in range(parent.size):
        # The parent's index is not larger, so it already points at the root.
        parent[item] = parent[parent[item]]
