"""A disk that takes no more is the machine's trouble, whoever writes: never a unit's, never damage."""

import subprocess
import sys

#: In a process of its own: a limit on the size of files stands in for a full disk.
WRITE = """
import resource, signal, sys
import numpy as np
from cytomill.runtime import failures
from cytomill.storage.stores import open_store

array = open_store(sys.argv[1]).create("images/50-10-10", (4, 256, 256), "uint8", (1, 256, 256))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
noise = np.random.default_rng(0).integers(0, 256, array.shape, dtype=np.uint8)
try:
    array.write(((0, 4),), noise)
except Exception as error:
    print(type(error).__name__, failures._number_of(error))
"""


def test_the_number_of_a_failed_write_is_known(tmp_path):
    command = [sys.executable, "-c", WRITE, str(tmp_path / "a.zarr")]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.split()[1:] == ["27"], found.stdout + found.stderr  # EFBIG
