"""One small dataset through every compiled kernel, so that no rank compiles while others wait."""

from __future__ import annotations

import numpy as np

from cytomill.kernels.background import background_histogram
from cytomill.kernels.binning import Binning, slice_range, to_bins
from cytomill.kernels.histogram import histogram_256
from cytomill.kernels.labelling import label_volume, threshold_mask
from cytomill.kernels.lookup import apply_table
from cytomill.nanoparticles.downsample import downsample_posterior
from cytomill.nanoparticles.measurements import measure_unit, merge_measurements, particle_table
from cytomill.nanoparticles.weights import solve_pi


def warm_kernels() -> None:
    """Call every kernel once, with each pixel type that it is compiled for."""
    image = (np.arange(4 * 64 * 64) % 251).astype(np.uint8).reshape(4, 64, 64)
    histogram = histogram_256(image[0])
    background_histogram(image[0], histogram, 128, 200, 1, 2)
    flat = np.full(256, 1 / 256)
    solve_pi(histogram[None], flat, flat, 1e-12, (1.0, 20.0))
    to_bins(image[0], Binning(reverse=True))
    wide = image[0].astype(np.uint16) * 200
    slice_range(wide)
    to_bins(wide, Binning(0, 50000))
    for dtype in (np.float16, np.uint8):
        posterior = apply_table(image, np.linspace(0, 1 if dtype == np.float16 else 255, 256).astype(dtype))
        downsample_posterior(posterior, (1, 5, 5))
        threshold_mask(posterior, 0.5)
        labels = label_volume(posterior, 0.5)
        sums = merge_measurements(measure_unit(labels, ((0, 4), (0, 64), (0, 64)), posterior, image))
        particle_table(sums, (1.0, 1.0, 1.0))
    measure_unit(labels, ((0, 4), (0, 64), (0, 64)), posterior, image.astype(np.uint16))
