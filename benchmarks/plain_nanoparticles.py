"""The nanoparticle definitions written down plainly in NumPy, SciPy and scikit-image.

Whole arrays, library calls, no kernel of the package: what the definitions say, as a reader would write
them first (`estimator = "reference"`).  The benchmark measures the package against it, and a test checks
that both give the same values.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize_scalar
from skimage.measure import label
from skimage.morphology import ball

EPS = 1e-12


def histograms(stack: np.ndarray) -> np.ndarray:
    """Histogram of every slice, (Z, 256) int64."""
    return np.stack([np.bincount(image.ravel(), minlength=256) for image in stack])


def norm(histogram: np.ndarray) -> np.ndarray:
    """Normalised histogram, floored at `EPS`; uniform where all is zero."""
    total = histogram.sum()
    p = np.full(256, 1 / 256) if total == 0 else histogram / total
    p = np.maximum(p, EPS)
    return p / p.sum()


def thresholds(hist_slices: np.ndarray, low: float = 99.5, high: float = 99.8) -> tuple[int, int]:
    """Percentiles of the stack's histogram."""
    cumulated = np.cumsum(norm(hist_slices.sum(axis=0)))
    return int(np.searchsorted(cumulated, low / 100)), int(np.searchsorted(cumulated, high / 100))


def background_histogram(
    image: np.ndarray, th_low: int, th_high: int, halo_pad: int = 20, min_size: int = 20
) -> np.ndarray:
    """Histogram of one slice outside the grown boxes of its bright candidates, below `th_high`."""
    components, _ = ndimage.label(image > th_low, structure=np.ones((3, 3)))
    sizes = np.bincount(components.ravel())
    outside = np.ones(image.shape, bool)
    for index, box in enumerate(ndimage.find_objects(components), start=1):
        if sizes[index] >= min_size:
            outside[tuple(slice(max(s.start - halo_pad, 0), s.stop + halo_pad) for s in box)] = False
    return np.bincount(image[outside & (image < th_high)], minlength=256)


def fit(
    hist_stack: np.ndarray, hist_bg: np.ndarray, th_low: int, nll_tol: float = 1e-10, max_iter: int = 10000
) -> tuple[np.ndarray, np.ndarray, float]:
    """EM: distributions of particles and background, and the background's weight."""
    p_stack, p_bg = norm(hist_stack), norm(hist_bg)
    bright = p_stack.copy()
    bright[:th_low] = 0
    p_np, w = norm(bright), hist_bg.sum() / hist_stack.sum()
    previous = np.inf
    for _ in range(max_iter):
        g = w * p_bg / (w * p_bg + (1 - w) * p_np + EPS)
        p_np = norm((1 - g) * p_stack)
        w = np.clip((p_stack * g).sum(), EPS, 1 - EPS)
        nll = -(p_stack * np.log(w * p_bg + (1 - w) * p_np + EPS)).sum()
        if previous - nll < nll_tol:
            break
        previous = nll
    return p_np, p_bg, float(w)


def mixing_weight(
    histogram: np.ndarray, p_np: np.ndarray, p_bg: np.ndarray, alpha: float = 1.0, beta: float = 20.0
) -> float:
    """MAP mixing weight of one slice."""

    def objective(pi: float) -> float:
        likelihood = (histogram * np.log(pi * p_np + (1 - pi) * p_bg + EPS)).sum()
        prior = (alpha - 1) * np.log(pi + EPS) + (beta - 1) * np.log(1 - pi + EPS)
        return -(likelihood + prior)

    return float(minimize_scalar(objective, bounds=(0, 1), method="bounded").x)


def posterior_table(pi: float, p_np: np.ndarray, p_bg: np.ndarray) -> np.ndarray:
    """Posterior of every grey level of one slice, (256,) float16."""
    particles = pi * p_np
    return (particles / (particles + (1 - pi) * p_bg + EPS)).astype(np.float16)


def posterior_slice(image: np.ndarray, p_np: np.ndarray, p_bg: np.ndarray) -> np.ndarray:
    """Posterior of one slice from the fitted mixture: its own histogram, weight and table."""
    pi = mixing_weight(np.bincount(image.ravel(), minlength=256), p_np, p_bg)
    return posterior_table(pi, p_np, p_bg)[image]


def downsampled(
    posterior: np.ndarray, factors: tuple[int, ...] = (1, 5, 5), sigma: tuple[float, ...] = (0.5, 1.5, 1.5)
) -> np.ndarray:
    """Float16 posterior smoothed as log-odds, then the mean of each whole block."""
    p = np.clip(posterior.astype(np.float32), 1e-5, 1 - 1e-5)
    smooth = ndimage.gaussian_filter(np.log(p / (1 - p)), sigma, mode="reflect", truncate=4.0)
    shape = [n // factor for n, factor in zip(posterior.shape, factors)]
    kept = (1 / (1 + np.exp(-smooth)))[tuple(slice(n * factor) for n, factor in zip(shape, factors))]
    blocks = kept.reshape([n for pair in zip(shape, factors) for n in pair])
    return blocks.mean(axis=(1, 3, 5)).astype(np.float16)


def labels(
    posterior: np.ndarray, threshold: float, radius: int = 1, connectivity: int = 2, min_size: int = 10
) -> np.ndarray:
    """Labels of a posterior volume, int32: threshold, closing, components, small ones dropped."""
    mask = posterior >= np.float16(threshold)
    # Room around it, so that the closing keeps the voxels at the volume's faces.
    mask = np.pad(mask, 2 * radius)
    mask = ndimage.binary_closing(mask, structure=ball(radius))
    inner = slice(2 * radius, -2 * radius) if radius else slice(None)
    found = label(mask[inner, inner, inner], connectivity=connectivity)
    kept = np.bincount(found.ravel()) >= min_size
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[found]


def measurements(
    labelled: np.ndarray, posterior: np.ndarray, image: np.ndarray, voxel_size_nm: tuple[float, ...]
) -> dict[str, np.ndarray]:
    """Measurements of every label from its bounding box; the package's names of columns."""
    size = np.asarray(voxel_size_nm)
    rows = []
    for index, box in enumerate(ndimage.find_objects(labelled), start=1):
        inside = labelled[box] == index
        points = np.argwhere(inside)
        centre = points.mean(axis=0)
        matter = np.atleast_2d(np.cov(points.T, bias=True)) * np.outer(size, size) + np.diag(size**2 / 12)
        axes = 2 * np.sqrt(5 * np.linalg.eigvalsh(matter)[::-1]) / 1000
        intensity = image[box][inside]
        probability = posterior[box][inside].astype(np.float64)
        rows.append(
            (
                index,
                *(s.start for s in box),
                *(s.stop for s in box),
                len(points),
                *(centre + [s.start for s in box]),
                *axes,
                intensity.mean(),
                intensity.max(),
                probability.mean(),
            )
        )
    columns = np.array(rows, np.float64).reshape(-1, len(MEASURED)).T
    return dict(zip(MEASURED, columns, strict=True))


#: Columns of :func:`measurements`.
MEASURED = (
    "label",
    *(f"bbox_{axis}0_voxel" for axis in "zyx"),
    *(f"bbox_{axis}1_voxel" for axis in "zyx"),
    "voxel_count",
    *(f"centroid_{axis}_voxel" for axis in "zyx"),
    "axis_major_um",
    "axis_middle_um",
    "axis_minor_um",
    "mean_intensity",
    "max_intensity",
    "mean_posterior",
)
