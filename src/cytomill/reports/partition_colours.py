"""Colours of a partition: one ordered ramp of shells from NE to PM, and what stands beside it."""

from __future__ import annotations

import matplotlib
import numpy as np

#: Nucleus and outer face of the plasma membrane in pictures, RGB 0..255.
NUCLEUS_COLOUR = (170, 178, 189)
MEMBRANE_COLOUR = (226, 220, 206)
#: Cytoplasm that no shell holds.
UNASSIGNED_COLOUR = (206, 60, 92)
#: Outlines of organelles over shells, in their order.
ORGANELLE_COLOURS = ((255, 106, 0), (255, 64, 160), (64, 224, 255), (255, 255, 255))
_ENDS = (0.08, 0.97)


def shell_colours(n_shells: int) -> np.ndarray:
    """Perceptually even colours, dark at the NE and bright at the PM.

    Returns
    -------
    (n_shells, 3) int64 ndarray
        RGB, 0..255.
    """
    steps = np.linspace(*_ENDS, n_shells) if n_shells > 1 else np.array([np.mean(_ENDS)])
    return np.rint(255 * matplotlib.colormaps["viridis"](steps)[:, :3]).astype(np.int64)


def hex_colour(rgb) -> str:
    """RGB 0..255 as ``#rrggbb``."""
    red, green, blue = (int(v) for v in rgb)
    return f"#{red:02x}{green:02x}{blue:02x}"
