"""The kernel of the pages is compiled when all others are, for the types that pages use."""

import numpy as np

from cytomill.reports import shell_rays
from cytomill.reports.nested_shells import NUCLEUS_ID, nested_shells


def test_a_page_compiles_no_ray_of_its_own():
    shell_rays.warm_rays()
    known = set(shell_rays._cast.signatures)
    distance = sum((axis - 7.5) ** 2 for axis in np.indices((16, 16, 16)))
    codes = np.select([distance < 9, distance < 25, distance < 49], [NUCLEUS_ID, 1, 2], 0).astype(np.uint8)
    assert nested_shells(codes, (50.0, 20.0, 20.0), 2).width > 0
    assert set(shell_rays._cast.signatures) == known
