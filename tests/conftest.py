"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

from cytomill.runtime.startup import numba_cache_folder

# Before numba is imported: kernels compiled from other sources than these must not be found.
os.environ["NUMBA_CACHE_DIR"] = str(numba_cache_folder())

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of reference values and public images beside the checkout; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference data in {SHARED.name}/ beside the checkout")
    return SHARED
