"""A slice's mixing weight is the minimum of a convex function, to the last digits, whoever is beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytomill.nanoparticles.mixture import norm
from cytomill.nanoparticles.weights import solve_pi

EPS = 1e-12
BINS = np.arange(256)
P_BG = norm(np.exp(-((BINS - 110) ** 2) / 400.0), EPS)
P_NP = norm(np.exp(-((BINS - 205) ** 2) / 300.0), EPS)


def histograms(seed, loads, pixels=40_000):
    rng = np.random.default_rng(seed)
    return np.stack([rng.multinomial(pixels, load * P_NP + (1 - load) * P_BG) for load in loads])


def slope(pi, h, alpha, beta, p_np=P_NP, p_bg=P_BG):
    """f'(pi) in extended precision."""
    pi, p_np, p_bg = np.longdouble(pi), p_np.astype(np.longdouble), p_bg.astype(np.longdouble)
    likelihood = (h * (p_np - p_bg) / (pi * p_np + (1 - pi) * p_bg + EPS)).sum()
    return -(likelihood + (alpha - 1) / (pi + EPS) - (beta - 1) / (1 - pi + EPS))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    load=st.sampled_from([0.0, 1e-5, 1e-3, 0.02, 0.3, 0.9, 1.0]),
    prior=st.sampled_from([(1.0, 1.0), (1.0, 20.0), (2.0, 20.0), (1.0, 1e6), (50.0, 1.0)]),
    pixels=st.sampled_from([100, 40_000, 4_000_000]),
)
def test_the_slope_changes_sign_at_the_weight(seed, load, prior, pixels):
    h = histograms(seed, [load], pixels)[0]
    pi = solve_pi(h[None], P_NP, P_BG, EPS, prior)[0]
    assert 0 <= pi <= 1
    if pi == 0:
        assert slope(0.0, h, *prior) >= 0
    elif pi == 1:
        assert slope(1.0, h, *prior) <= 0
    else:
        step = 1e-12 * max(pi, 1e-300)
        assert slope(pi - step, h, *prior) < 0 < slope(min(pi + step, 1.0), h, *prior)


@pytest.mark.parametrize("solver", ["newton", "bounded"])
def test_grouping_and_order_of_slices_change_no_bit(solver):
    hist = histograms(1, np.geomspace(1e-5, 0.5, 17))
    together = solve_pi(hist, P_NP, P_BG, EPS, (1.0, 20.0), solver=solver)
    one_by_one = [solve_pi(h[None], P_NP, P_BG, EPS, (1.0, 20.0), solver=solver)[0] for h in hist]
    order = np.random.default_rng(0).permutation(17)
    shuffled = solve_pi(hist[order], P_NP, P_BG, EPS, (1.0, 20.0), solver=solver)
    assert np.array_equal(together, one_by_one)
    assert np.array_equal(together[order], shuffled)


def test_a_distribution_a_slice_equals_slices_on_their_own():
    hist = histograms(2, [0.01, 0.1, 0.2])
    p_np = np.stack([np.roll(P_NP, shift) for shift in (-4, 0, 7)])
    p_bg = np.stack([np.roll(P_BG, shift) for shift in (-4, 0, 7)])
    together = solve_pi(hist, p_np, p_bg, EPS, (1.0, 20.0))
    alone = [solve_pi(hist[z : z + 1], p_np[z], p_bg[z], EPS, (1.0, 20.0))[0] for z in range(3)]
    assert np.array_equal(together, alone)


def test_the_edges_are_exact():
    only_bg = np.zeros((1, 256), np.int64)
    only_bg[0, 110] = 1000
    only_np = np.zeros((1, 256), np.int64)
    only_np[0, 205] = 1000
    assert solve_pi(only_bg, P_NP, P_BG, EPS, (1.0, 20.0))[0] == 0.0
    assert solve_pi(only_np, P_NP, P_BG, EPS, (1.0, 1.0))[0] == 1.0
    assert solve_pi(np.zeros((1, 256), np.int64), P_NP, P_BG, EPS, (1.0, 20.0))[0] == 0.0


def test_the_bounded_solver_is_near_the_minimum():
    hist = histograms(3, [1e-4, 0.01, 0.4])
    newton = solve_pi(hist, P_NP, P_BG, EPS, (1.0, 20.0))
    bounded = solve_pi(hist, P_NP, P_BG, EPS, (1.0, 20.0), solver="bounded")
    assert np.abs(newton - bounded).max() < 2e-5


def test_no_slices_give_no_weights():
    assert solve_pi(np.zeros((0, 256), np.int64), P_NP, P_BG, EPS, (1.0, 20.0)).shape == (0,)


@pytest.mark.parametrize("prior", [(0.5, 20.0), (1.0, 0.99), (float("nan"), 2.0)])
def test_priors_that_are_not_convex_are_refused(prior):
    with pytest.raises(ValueError, match="not convex"):
        solve_pi(histograms(0, [0.1]), P_NP, P_BG, EPS, prior)


def test_wrong_shapes_and_solvers_are_refused():
    hist = histograms(0, [0.1, 0.2])
    with pytest.raises(ValueError, match="p_np must have shape"):
        solve_pi(hist, np.stack([P_NP] * 3), P_BG, EPS, (1.0, 20.0))
    with pytest.raises(ValueError, match="hist_slices"):
        solve_pi(hist[0], P_NP, P_BG, EPS, (1.0, 20.0))
    with pytest.raises(ValueError, match="pi_solver"):
        solve_pi(hist, P_NP, P_BG, EPS, (1.0, 20.0), solver="brent")
