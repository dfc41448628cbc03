"""The robust estimator on a small stack, through the same functions as the pipeline."""

import numpy as np

from cytomill.kernels.binning import Binning
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.robust import RobustEstimator
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms


def fitted(volume):
    """Histograms of the slices, mixture and posterior of an 8-bit stack."""
    config = NanoparticleSegConfig(root_path="", spacing_dir="")
    estimator = RobustEstimator(config)
    hist, sampled = slab_histograms(volume, Binning()), np.ones(len(volume), bool)
    thresholds = estimator.thresholds(hist, sampled)
    background = slab_backgrounds(volume, 0, Binning(), hist, thresholds, config.halo_pad, config.min_size)
    mixture = estimator.fit(hist, background, thresholds, sampled)
    return hist, mixture, estimator.posterior(mixture, hist)
