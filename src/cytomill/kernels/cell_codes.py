"""What the numbers of a partitioned cell's stored fields mean; nothing heavy is imported.

A voxel's ``compartment`` says how it is counted:

==========  =================================================================
0           outside: farther from every cell than the margin
1           margin: outside, but near the cell whose id ``territory`` holds
2           cytoplasm
3           cytoplasm, censored: nearer to a face of the volume than to the membrane
4           nucleus
==========  =================================================================
"""

from __future__ import annotations

OUTSIDE, MARGIN, CYTOPLASM, CENSORED, NUCLEUS = range(5)

#: Radial positions are stored as round(65535 t).
POSITION_ONE = 65535
#: A distance that is not known, or too large for its unit.
SATURATED = 65535
#: Shell ids are bytes, and the largest few are kept free.
MOST_SHELLS = 250
#: Of those, in an array of shell ids that shows the whole cell: its nucleus, and cytoplasm that a method left
#: without a shell.
NUCLEUS_ID, UNASSIGNED_ID = 255, 254


def check_shell_count(n: int) -> None:
    """Refuse a number of shells that is not a whole number from 1 to :data:`MOST_SHELLS`."""
    if int(n) != n or not 1 <= n <= MOST_SHELLS:
        raise ValueError(f"the number of shells must be 1 to {MOST_SHELLS}, got {n}")
