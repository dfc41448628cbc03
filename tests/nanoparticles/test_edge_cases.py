"""Every unusual stack gives what the published reference gave, or is refused with a sentence."""

import json

import numpy as np
import pytest
import zarr

from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.segmentation import NanoparticleSegmentation, label_nanoparticles
from cytomill.storage.stores import open_store

SPACING = "50-10-10"

#: Beta(1/2, 20) ran in the reference; its posterior is not convex, so it is refused here.
REFUSED = {
    "constant100": "is background",
    "all_zero": "is background",
    "all_255": "is background",
    "zero_slices": "is empty",
    "halo_covers_slice": "halo_pad = 30",
    "max_iter0": "max_iter must be at least 1",
    "beta_half_20": "not convex",
    "int16": "must be uint8 or uint16",
    "float32": "must be uint8 or uint16",
    "bool": "must be uint8 or uint16",
}
#: Raised in the reference and run here.
RUN_HERE = ("one_slice_255", "uint16")

CASES = (
    "all_255 all_zero beta_1_1 beta_1_1e6 beta_2_20 beta_half_20 big_eps binary_0_255 bool constant100 "
    "density_0.5 density_2 density_20 density_6 density_60 float32 halo0 halo_covers_slice int16 max_iter0 "
    "max_iter1 max_iter50 min_size_huge no_np normal np_single_intensity odd_shape_chunks one_slice_0 "
    "one_slice_255 one_slice_const120 percent_100 percent_low_gt_high sampling_step2 sampling_step_gt_z "
    "single_slice three_slices uint16 uint16_le255 zero_slices"
).split()


def write_images(root, volume):
    """A plain Zarr v3 store such as other programs write, with the volume as its images."""
    group = zarr.create_group(str(root), zarr_format=3)
    chunks = tuple(max(n, 1) for n in (1, *volume.shape[1:]))
    array = group.create_array(
        f"images/{SPACING}", shape=volume.shape, dtype=volume.dtype, chunks=chunks,
        attributes={"spacing": [50, 10, 10]}, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    if volume.size:
        array[:] = volume
    return root


@pytest.fixture(scope="module")
def edge(shared_dir):
    folder = shared_dir / "golden" / "nanoparticles" / "edge"
    return folder, json.loads((folder / "report.json").read_text())


def volume_of(folder, name, case):
    expected = np.load(folder / f"{name}.npz")
    if "volume" in expected.files:
        return expected["volume"]
    volume = np.load(folder / "normal.npz")["volume"]
    if name == "uint16":
        # 16-bit data whose greatest value is 50000, as recorded.
        return np.linspace(0, 50000, 256).astype(np.uint16)[volume]
    return volume.astype(case["dtype"])


def test_all_cases_are_covered(edge):
    _, report = edge
    assert sorted(report) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_an_unusual_stack_is_segmented_as_recorded_or_refused(name, edge, tmp_path):
    folder, report = edge
    case = report[name]
    expected = np.load(folder / f"{name}.npz")
    volume = volume_of(folder, name, case)
    assert list(volume.shape) == case["shape"] and volume.dtype == case["dtype"]
    root = write_images(tmp_path / "stack.zarr", volume)
    settings = {"estimator": "reference", "pi_solver": "bounded", **case["config"]}

    if name in REFUSED:
        with pytest.raises((ValueError, TypeError), match=REFUSED[name]) as refusal:
            config = NanoparticleSegConfig(root_path=str(root), spacing_dir=SPACING, **settings)
            NanoparticleSegmentation(config).fit()
        assert "\n" not in str(refusal.value)
        return

    config = NanoparticleSegConfig(root_path=str(root), spacing_dir=SPACING, **settings)
    model = NanoparticleSegmentation(config).fit()
    if name in RUN_HERE:
        posterior = model.predict().read()
        assert posterior.shape == volume.shape and np.isfinite(posterior).all()
        return

    assert np.array_equal(model.hist_stack, expected["hist_stack"])
    assert np.array_equal(model.hist_bg, expected["hist_bg"])
    assert (model.th_low, model.th_high) == (expected["th_low"], expected["th_high"])
    fit = model.summary_fit
    assert fit["nit"] == expected["nit"]
    assert fit["converged"] == (fit["nit"] < config.max_iter - 1)
    assert bool(model.notes) != fit["converged"]
    assert abs(fit["w_bg"] - expected["w_bg"]) <= 1e-12
    assert abs(fit["nll"] - expected["nll"]) <= 1e-12
    assert np.abs(model.p_np - expected["p_np"]).max() <= 1e-11
    assert np.abs(model.slices.pi_map - expected["pi"]).max() <= 1e-5

    posterior = model.predict().read()
    counts = (posterior >= np.float16(0.95)).sum(axis=(1, 2))
    assert counts.tolist() == case["n_posterior_ge_095_per_slice"]
    assert posterior.max() == case["posterior_max"]
    if "posterior" in expected.files:
        assert np.array_equal(posterior, expected["posterior"])

    count = label_nanoparticles(str(root), SPACING, 0.95, border="zero")
    labels = open_store(root).open(f"labels/nps/masks/{SPACING}").read()
    assert count == case["n_labels"] == labels.max()
    assert np.array_equal(labels, expected["labels"])


def test_the_newton_weights_are_within_tolerance_of_the_recorded_ones(edge):
    folder, report = edge
    from cytomill.kernels.histogram import histogram_256
    from cytomill.nanoparticles.weights import solve_pi

    checked = 0
    for name in CASES:
        expected = np.load(folder / f"{name}.npz")
        if report[name]["result"] != "ok" or name == "beta_half_20":
            continue
        config = report[name]["config"]
        volume = volume_of(folder, name, report[name]).astype(np.uint8)
        hist = np.stack([histogram_256(image) for image in volume])
        pi = solve_pi(
            hist, expected["p_np"], expected["p_bg"], config.get("eps", 1e-12),
            config.get("beta_params", (1.0, 20.0)),
        )  # fmt: skip
        assert np.abs(pi - expected["pi"]).max() <= 1e-5, name
        checked += 1
    assert checked == 27
