"""Height of a surface over a terrace: the steps of a sampled surface that runs along the samples.

Where a mask changes between two rows (or slices) all along a stretch, the surface lies between them; only at
the ends of the stretch, where it passes through one of the rows, its height is known. Between a contour of
the one and a contour of the other the height is interpolated by the distances to both.
"""

from __future__ import annotations

from numba import njit

#: A run of voxels along which two rows differ is a terrace when it is this long.
LONG_RUN = 4
#: A cap taller than this, in steps between contours, is no cap of a sphere.
TALLEST_CAP = 1.5


@njit(nogil=True, cache=True)
def bend_of_ring(ring, inner, outer):
    """Bend of the height between two contours from the distances between those and the next ones.

    A parabola through three contours; of two, that with the lesser bend, and none where they bend apart.

    Parameters
    ----------
    ring : float
        Width between the two contours that bound the place.
    inner, outer : float
        Width from the lower contour to the one before and from the higher to the one after, -1 where none.

    Returns
    -------
    float
        At the part p of the way from the lower contour, the height is p + bend · p (1 - p). Within ±1,
        beyond which the parabola would turn back between its contours.
    """
    below = above = 0.0
    if inner > 0.0:
        below = ring * (ring - inner) / (inner * (ring + inner))
    if outer > 0.0:
        above = ring * (outer - ring) / (outer * (ring + outer))
    if inner <= 0.0:
        bend = above
    elif outer <= 0.0:
        bend = below
    elif below * above <= 0.0:
        bend = 0.0
    else:
        bend = below if abs(below) < abs(above) else above
    return min(max(bend, -1.0), 1.0)


@njit(nogil=True, cache=True)
def height_of_cap(inradius, spread):
    """Height of a cap over its last contour, in steps; -1 where a sphere's would be too tall.

    On a sphere ρ² falls linearly along the axis, so h = M² / (ρ₁² − M²) with the radius M of the last
    contour and that of the one before, ρ₁ = M + `spread`.
    """
    growth = spread * (2.0 * inradius + spread)
    if spread <= 0.0 or inradius * inradius > TALLEST_CAP * growth:
        return -1.0
    return min(1.0, inradius * inradius / growth)


@njit(nogil=True, cache=True)
def _reach_in_row(mask, y, x, step, value, most):
    """Voxels of `value` from x on to a contour in a direction; -1 where there is none within `most`.

    A face is no contour: what reaches one goes on beyond it.
    """
    if y < 0 or y >= mask.shape[0]:
        return -1.0
    count = 0
    while 0 <= x < mask.shape[1] and mask[y, x] == value and count < most:
        count += 1
        x += step
    return float(count) if 0 <= x < mask.shape[1] and count < most else -1.0


@njit(nogil=True, cache=True)
def height_of_run(mask, y, start, stop, heights):
    """Heights over row y of the surface where rows y and y + 1 differ all along a run of voxels.

    Parameters
    ----------
    mask : (Y, X) uint8 ndarray
        Of 0 and 1.
    y, start, stop : int
        Row, and the run's range: ``mask[y]`` is constant there and ``mask[y + 1]`` its opposite.
    heights : (N,) float64 ndarray
        Result, from 0 (row y) to 1 (row y + 1), for each voxel of the run.

    Returns
    -------
    bool
        Whether the run's ends tell; else `heights` is not set.
    """
    width = mask.shape[1]
    length = stop - start
    if length < LONG_RUN or start == 0 or stop == width:
        return False
    value = mask[y, start]
    left_low, left_high = mask[y, start - 1] != value, mask[y + 1, start - 1] == value
    right_low, right_high = mask[y, stop] != value, mask[y + 1, stop] == value
    if left_low == left_high or right_low == right_high:
        return False
    most = 4 * length
    if left_low != right_low:
        # From the lower row's contour to the upper's.
        if left_low:
            inner = _reach_in_row(mask, y - 1, start - 1, -1, value, most)
            outer = _reach_in_row(mask, y + 2, stop, 1, 1 - value, most)
        else:
            inner = _reach_in_row(mask, y - 1, stop, 1, value, most)
            outer = _reach_in_row(mask, y + 2, start - 1, -1, 1 - value, most)
        bend = bend_of_ring(float(length), inner, outer)
        for i in range(length):
            part = (i + 0.5) / length
            if not left_low:
                part = 1.0 - part
            heights[i] = part + bend * part * (1.0 - part)
        return True
    # A cap of the lower row, or one of the upper row upside down.
    row = y - 1 if left_low else y + 2
    kept = value if left_low else 1 - value
    left = _reach_in_row(mask, row, start - 1, -1, kept, most)
    right = _reach_in_row(mask, row, stop, 1, kept, most)
    if left <= 0.0 or right <= 0.0:
        return False
    height = height_of_cap(0.5 * length, 0.5 * (left + right))
    if height < 0.0:
        return False
    for i in range(length):
        part = (i + 0.5) / length
        heights[i] = 4.0 * height * part * (1.0 - part)
        if not left_low:
            heights[i] = 1.0 - heights[i]
    return True
