"""Grey levels of any number type, laid linearly over those of 8 or 16 bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Number types that pixels can be scaled to.
UNSIGNED = ("uint8", "uint16")


@dataclass(frozen=True)
class GreyLevels:
    """``round((v - low) / (high - low) * most)``, cut to 0 … most; what is not finite becomes 0.

    Parameters
    ----------
    low, high : float
        Values that become 0 and the largest grey level.
    dtype : {"uint8", "uint16"}
        Number type of the result.

    Raises
    ------
    ValueError
        If the levels are not finite and rising, or the number type is another.
    """

    low: float
    high: float
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in UNSIGNED:
            raise ValueError(f"grey levels are scaled to {' or '.join(UNSIGNED)}, found {self.dtype!r}")
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"grey levels are scaled from a low to a higher value, found {self.low:g} and {self.high:g}"
            )

    @classmethod
    def of_type(cls, source: np.dtype | str, dtype: str) -> GreyLevels | None:
        """All values of an integer type that has no more of them than `dtype`: they are moved, none is lost.

        Parameters
        ----------
        source : dtype
            Of the pixels.
        dtype : {"uint8", "uint16"}
            Number type of the result.

        Returns
        -------
        GreyLevels or None
            None where the type has more values, so that the data must say which are used.
        """
        source = np.dtype(source)
        if source.kind not in "iu" or source.itemsize > np.dtype(dtype).itemsize:
            return None
        low = float(np.iinfo(source).min)
        return cls(low, low + float(np.iinfo(dtype).max), dtype)

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """Scale pixels.

        Parameters
        ----------
        pixels : ndarray of real numbers
            A slice rather than a volume: the values pass through floating point.

        Returns
        -------
        ndarray
            In `dtype`, of the same shape.
        """
        most = np.iinfo(self.dtype).max
        # float32 holds every 16-bit integer; wider integers and float64 keep their digits until they are cut.
        values = pixels.astype(np.result_type(pixels.dtype, np.float32))
        values -= values.dtype.type(self.low)
        values *= values.dtype.type(most / (self.high - self.low))
        with np.errstate(invalid="ignore"):  # NaN is dealt with below
            np.clip(np.rint(values, out=values), 0, most, out=values)
        if pixels.dtype.kind == "f":
            values[~np.isfinite(pixels)] = 0
        return values.astype(self.dtype)


def finite_range(pixels: np.ndarray) -> tuple[float, float]:
    """Smallest and largest finite value; ``(inf, -inf)`` where there is none.

    Parameters
    ----------
    pixels : ndarray of real numbers
    """
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels)
        if not finite.all():
            pixels = pixels[finite]
    if not pixels.size:
        return float("inf"), float("-inf")
    return float(pixels.min()), float(pixels.max())
