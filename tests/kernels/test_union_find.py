"""Sets do not depend on the order in which they were joined."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cytomill.kernels.union_find import flatten, union


def roots(count, pairs):
    parent = np.arange(count)
    for first, second in pairs:
        union(parent, first, second)
    flatten(parent)
    return parent


pairs_of_items = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30)


@settings(max_examples=60, deadline=None)
@given(pairs=pairs_of_items, seed=st.integers(0, 2**32 - 1))
def test_roots_are_the_smallest_members_in_any_order(pairs, seed):
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(20, 20))
    _, member = connected_components(graph, directed=False)
    expected = [np.flatnonzero(member == own)[0] for own in member]
    shuffled = np.random.default_rng(seed).permutation(edges)[:, ::-1]
    assert roots(20, edges).tolist() == expected
    assert roots(20, shuffled).tolist() == expected
