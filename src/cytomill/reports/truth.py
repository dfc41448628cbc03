"""Posterior against a known truth: an exact tally of voxels, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cytomill.kernels.labelling import threshold_mask

#: Voxels that a part of the posterior's range needs for its share of particles to be trusted.
FEWEST_VOXELS = 1000
#: Equal parts of the posterior's range.
PARTS = 10
#: Bits of float16 1.0; those of the numbers from 0 to 1 lie below, in the same order.
_HIGHEST_FLOAT16 = 0x3C00


@dataclass
class Calibration:
    """How often a pixel is particle where the posterior says p; known on phantoms only.

    Parameters
    ----------
    predicted, observed : (N,) float ndarray
        Mean posterior and true share of particle voxels in each of N equal parts of the posterior's
        range; NaN in parts without voxels.
    counts : (N,) integer ndarray
        Voxels in each part.
    threshold : float or None
        Posterior threshold of a label.
    dice, precision, recall : float or None
        Overlap of the voxels at or above the threshold, before closing, with the truth, 0 to 1; None
        where there is nothing to divide by.
    true_load : float or None
        Share of the voxels that are particle.
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    threshold: float | None = None
    dice: float | None = None
    precision: float | None = None
    recall: float | None = None
    true_load: float | None = None

    @property
    def trusted(self) -> np.ndarray:
        """(N,) bool: parts with voxels enough for their share to mean something."""
        return np.asarray(self.counts) >= FEWEST_VOXELS

    @property
    def largest_deviation(self) -> float | None:
        """Largest difference between posterior and truth among the trusted parts."""
        trusted = self.trusted
        if not trusted.any():
            return None
        return float(np.abs(np.asarray(self.predicted) - np.asarray(self.observed))[trusted].max())

    @property
    def rows(self) -> list[tuple[float, float, int, bool]]:
        """``(predicted, observed, voxels, trusted)`` of every part that has voxels, rising."""
        columns = (self.predicted, self.observed, self.counts, self.trusted)
        return [(float(p), float(o), int(n), bool(t)) for p, o, n, t in zip(*columns, strict=True) if n]


class TruthTally:
    """Counts voxels by posterior and truth, block by block, in any order.

    A stored posterior has few values, so counting each of them keeps everything that thresholds and
    tenths can ask for, in integers.

    Parameters
    ----------
    dtype : dtype-like
        Of the posterior: float16, or uint8 for ``round(255 p)``.

    Raises
    ------
    ValueError
        For another dtype.
    """

    def __init__(self, dtype: np.dtype | str) -> None:
        self.dtype = np.dtype(dtype)
        if self.dtype == np.uint8:
            self._bits = np.dtype(np.uint8)
            self._values = np.arange(256, dtype=np.uint8)
        elif self.dtype == np.float16:
            self._bits = np.dtype(np.uint16)
            self._values = np.arange(_HIGHEST_FLOAT16 + 1, dtype=np.uint16).view(np.float16)
        else:
            raise ValueError(f"a posterior is float16 or uint8, found {self.dtype}")
        self._all = np.zeros(self._values.size, np.int64)
        self._particle = np.zeros(self._values.size, np.int64)

    def add(self, posterior: np.ndarray, truth: np.ndarray) -> None:
        """Count a block.

        Parameters
        ----------
        posterior : ndarray
            Of the tally's dtype, any shape, 0 to 1.
        truth : ndarray
            The same shape; not 0 where a voxel is particle.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        if posterior.shape != truth.shape:
            raise ValueError(f"posterior of shape {posterior.shape}, truth of shape {truth.shape}")
        bits = np.ascontiguousarray(posterior, self.dtype).view(self._bits)
        self._all += np.bincount(bits.ravel(), minlength=self._values.size)
        self._particle += np.bincount(bits[truth != 0], minlength=self._values.size)

    def calibration(self, threshold: float | None = None) -> Calibration:
        """What the voxels counted so far say.

        Parameters
        ----------
        threshold : float or None
            Posterior threshold of a label, for the Dice coefficient.
        """
        posterior = self._values.astype(np.float64) / (255 if self.dtype == np.uint8 else 1)
        part = np.minimum((posterior * PARTS).astype(np.int64), PARTS - 1)
        counts, particles, sums = (
            np.bincount(part, weights, PARTS)
            for weights in (self._all, self._particle, self._all * posterior)
        )
        seen = np.where(counts > 0, counts, np.nan)
        voxels, true = int(self._all.sum()), int(self._particle.sum())
        overlap = {}
        if threshold is not None:
            kept = threshold_mask(self._values[None, None], threshold)[0, 0].astype(bool)
            found, right = int(self._all[kept].sum()), int(self._particle[kept].sum())
            overlap = {
                "threshold": threshold,
                "dice": _ratio(2 * right, found + true),
                "precision": _ratio(right, found),
                "recall": _ratio(right, true),
            }
        return Calibration(
            sums / seen, particles / seen, counts.astype(np.int64), true_load=_ratio(true, voxels), **overlap
        )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
