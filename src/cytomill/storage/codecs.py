"""Opening Zarr arrays with the faster codec pipeline where it is safe."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import zarr

FAST_PIPELINE = "zarrs.ZarrsCodecPipeline"

# zarr's configuration belongs to the process, and an array takes its pipeline when it is opened:
# two threads that open arrays of different kinds must not see each other's choice.
_configuration = threading.Lock()


@contextmanager
def fast_codecs() -> Iterator[None]:
    """Open arrays inside this context to have their chunks coded by ``zarrs``.

    Only for native-endian Zarr v3 arrays in a local folder. The pipeline takes RAYON_NUM_THREADS threads
    (all cores unless it is set before the import) and replaces shard files in place, without fsync.
    """
    with _configuration, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Array is unsupported by ZarrsCodecPipeline")
        with zarr.config.set(
            {"codec_pipeline.path": FAST_PIPELINE, "codec_pipeline.validate_checksums": True}
        ):
            yield
