"""Labels and measurements of the published reference are reproduced."""

import re

import numpy as np
import pandas as pd
import pytest

from cytomill.kernels.labelling import label_volume
from cytomill.kernels.moments import covariances
from cytomill.nanoparticles.measurements import measure_unit, merge_measurements, particle_table

VARIANTS = {
    "labels_50_10_10": ("50-10-10", 0.95, 1, 2, 10),
    "labels_50_50_50": ("50-50-50", 0.95, 1, 2, 10),
}
for name in (
    "50-10-10_th0p95_r0_c1_m1",
    "50-10-10_th0p95_r0_c3_m1",
    "50-10-10_th0p5_r1_c1_m10",
    "50-10-10_th0p5_r2_c2_m10",
    "50-10-10_th0p9_r1_c2_m100",
    "50-10-10_th0p95_r1_c3_m10",
    "50-50-50_th0p5_r1_c2_m10",
    "50-50-50_th0p5_r0_c1_m1",
):
    spacing, threshold, *others = re.fullmatch(r"([\d-]+)_th(\dp\d+)_r(\d)_c(\d)_m(\d+)", name).groups()
    VARIANTS[name] = (spacing, float(threshold.replace("p", ".")), *map(int, others))


@pytest.fixture(scope="module")
def golden(shared_dir):
    return shared_dir / "golden" / "nanoparticles" / "main"


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("block", [None, (7, 100, 300)])
def test_labels_are_the_references_voxel_for_voxel(golden, name, block):
    spacing, *parameters = VARIANTS[name]
    posterior = np.load(golden / f"posterior_f2_{spacing}.npz")["posterior"]
    expected = np.load(golden / "labels.npz")[name]
    labels = label_volume(posterior, *parameters, "zero", block)
    assert labels.dtype == expected.dtype
    assert np.array_equal(labels, expected)


def test_the_default_border_keeps_voxels_at_the_faces(golden):
    posterior = np.load(golden / "posterior_f2_50-10-10.npz")["posterior"]
    mask = posterior >= np.float16(0.5)
    labels = label_volume(posterior, 0.5, 1, 2, 1)
    assert mask[0].any()
    assert (labels[mask] > 0).all()


def test_the_table_of_particles_is_the_references(golden):
    expected = pd.read_parquet(golden / "measure" / "nps_regionprops.parquet")
    labels = np.load(golden / "measure" / "arrays.npz")["nps"]
    region = tuple((0, size) for size in labels.shape)
    sums = merge_measurements(measure_unit(labels, region))
    table = particle_table(sums, (50, 50, 50))
    assert np.array_equal(table["label"], expected["label"])
    boxes = [f"bbox_{axis}{end}_voxel" for end in (0, 1) for axis in "zyx"]
    assert np.array_equal(table[boxes], expected[[f"bbox__{index}" for index in range(6)]])
    close = {"rtol": 1e-14, "atol": 0}
    assert np.allclose(table["volume_um3"], expected["volume"], **close)
    assert np.allclose(table["equivalent_diameter_um"], expected["diam_equiv"], **close)
    for index, axis in enumerate("zyx"):
        assert np.allclose(table[f"centroid_{axis}_voxel"], expected[f"centroid__{index}"], **close)
    # The reference keeps the inertia tensor's eigenvalues in voxels, of the voxels' centres alone.
    spread = covariances(sums)
    inertia = np.trace(spread, axis1=1, axis2=2)[:, None, None] * np.eye(3) - spread
    eigenvalues = expected[[f"eigvals__{index}" for index in range(3)]]
    assert np.allclose(np.linalg.eigvalsh(inertia), eigenvalues, rtol=1e-12)
