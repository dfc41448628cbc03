"""An input may be a symbolic link: it is read like the file that it points to, under the link's name."""

import h5py
import numpy as np
import pytest
from volume_writers import SHAPE, WRITERS, hdf5, ramp

from cytomill.storage.volumes import open_volume


@pytest.mark.parametrize("name", ["mrc_i2", "tiff_pages", "tiff_ome", "hdf5", "zarr_v3"])
def test_a_link_of_another_name_is_read_as_its_target(tmp_path, name):
    write, dtype = WRITERS[name]
    (tmp_path / "elsewhere").mkdir()
    target = write(tmp_path / "elsewhere", ramp(dtype))
    link = tmp_path / f"linked{''.join(target.suffixes)}"
    link.symlink_to(target)
    with open_volume(link) as volume:
        np.testing.assert_array_equal(volume.read(), ramp(dtype))
        assert volume.path == link


def test_the_parts_of_a_virtual_dataset_lie_beside_the_target_of_a_link(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    hdf5(folder / "part.h5", ramp("u1"))
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource("part.h5", "raw", SHAPE)
    with h5py.File(folder / "all.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    (tmp_path / "linked.h5").symlink_to(folder / "all.h5")
    with open_volume(tmp_path / "linked.h5") as volume:
        np.testing.assert_array_equal(volume.read(), ramp("u1"))
