"""The class API: the documented signatures, the reference bit by bit, the truth, and masks of any kind."""

import inspect
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile

import cytomill.partitioning as package
from cytomill.partitioning import Partitioning, calculate_rdf_from_xvg, compute_partition_features, xvg
from cytomill.partitioning.smoothing import smooth_mask

_PARTITION = "(self, ne_edge, pm_edge, shape, n_slices=None, pm_mask=None, ne_mask=None)"

#: What the documentation promises: names, order, defaults; what follows a star is an addition of ours.
SIGNATURES = {
    "Partitioning": "(root_dir, n_slices=8, num_cores=None, *, compat=False, method='normalized', "
    "field='edt', voxel_size_nm=None, seed=0, ne_labels=(), pm_labels=())",
    "Partitioning.load_mask_data": "(self, ne_path, pm_path)",
    "Partitioning.smooth_mask": "(mask, sigma=1.0, close_iter=2)",
    "Partitioning.extract_ne_pm_edges": "(self, pm_mask, ne_mask, smooth_sigma=1.0, smooth_close_iter=2)",
    "Partitioning.min_angle": "(ne_points, pm_point, center)",
    "Partitioning.find_ne_pm_pairs": "(self, center, ne_edge, pm_edge, step=8, save_txt=False, dataid=None)",
    "Partitioning.points_along_vector": "(p1, p2, n_slices)",
    "Partitioning.shell_partition": "(self, pairs, cell_mask=None)",
    "Partitioning.shell_partition_optimized": "(self, pairs, cell_mask=None)",
    "Partitioning.create_nepm_radial_partitions": _PARTITION,
    "Partitioning.create_nepm_radial_partitions_with_edt": _PARTITION,
    "Partitioning.create_nepm_radial_partitions_pure_pairs": _PARTITION,
    "Partitioning.create_shell_based_partitions": _PARTITION,
    "Partitioning.extract_partition_coordinates": "(self, partition_mask, sampling_density=0.1)",
    "Partitioning.save_partition_coords_to_xvg": "(self, partition_coords, dataid, output_dir)",
    "visualize_partitions": "(partition_masks=None, slice_idx=None, save_path=None, partition_list=None, "
    "cmap='viridis', *, voxel_size_nm=None)",
    "plot_partition_features": "(partition_mask, save_path=None)",
    "plot_radial_rdf": "(rdf_results, save_path=None)",
    "load_partition_coords_from_xvg": "(xvg_file)",
    "calculate_rdf_from_xvg": "(organelle_mask, partition_coords, radial_positions=None, bins=8, *, "
    "compat=False)",
    "save_radial_rdf_results": "(rdf_results, output_dir, data_id)",
    "compute_partition_features": "(partition_mask, organelle_masks=None, voxel_size_nm=None)",
    "UniversalDataLoader.load_data": "(file_path, channel=None, normalize=False, return_metadata=False)",
    "UniversalDataLoader.get_last_metadata": "()",
    "UniversalDataLoader.batch_load": "(file_list, channel=None, normalize=False)",
    "QuickLogger": "(name='analysis', log_dir='logs', console_output=True)",
    "QuickLogger.step": "(self, message)",
    "QuickLogger.file_in": "(self, file_path)",
    "QuickLogger.file_out": "(self, file_path)",
    "QuickLogger.error": "(self, message)",
    "log_analysis": "(log_dir='logs')",
}
STATIC = ["Partitioning.smooth_mask", "Partitioning.min_angle", "Partitioning.points_along_vector"]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_documentation(name):
    first, _, method = name.partition(".")
    found = getattr(package, first)
    signature = inspect.signature(getattr(found, method) if method else found)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


def test_static_methods_need_no_object():
    for name in [*STATIC, "UniversalDataLoader.load_data", "UniversalDataLoader.batch_load"]:
        owner, method = name.split(".")
        assert isinstance(inspect.getattr_static(getattr(package, owner), method), staticmethod)


def test_importing_the_package_loads_neither_matplotlib_nor_scipy():
    heavy = "{'matplotlib', 'scipy', 'numba'}"
    code = f"import sys, cytomill.partitioning; print(sorted({heavy} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_every_name_of_the_package_exists():
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def load_case(shared_dir, case):
    """Nucleus, cell and true shells of a golden case."""
    with np.load(shared_dir / f"golden/partitioning/{case}_input.npz") as arrays:
        shape = tuple(arrays["shape"])
        ne, pm = (
            np.unpackbits(arrays[key])[: np.prod(shape)].reshape(shape).astype(bool) for key in ("ne", "pm")
        )
        truth = {}
        for key in ("t_ray", "t_edt"):
            if key in arrays:
                truth[key] = np.zeros(shape, np.uint8)
                t = arrays[key] / 65535
                truth[key][pm & ~ne] = np.minimum(8, np.floor(8 * t) + 1)
    return ne, pm, truth


def balls(shape=(40, 44, 48), radii=(8, 18), centre=None):
    """Nucleus and cell: balls about the same centre."""
    centre = np.array(shape) / 2 - 0.5 if centre is None else np.asarray(centre)
    places = np.indices(shape).reshape(len(shape), -1).T
    distance = np.linalg.norm(places - centre, axis=1).reshape(shape)
    return distance <= radii[0], distance <= radii[1]


@pytest.fixture
def partitioning(tmp_path):
    return Partitioning(tmp_path / "a" / "root")


def whole(partitioning, ne, pm, **options):
    """The documented way from masks to shells."""
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    return partitioning.create_nepm_radial_partitions(
        ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne, **options
    )


def test_folders_are_made_with_their_parents(partitioning, tmp_path):
    assert (tmp_path / "a" / "root" / "results").is_dir()
    assert (partitioning.root_dir, partitioning.n_slices, partitioning.num_cores) == (
        tmp_path / "a" / "root",
        8,
        None,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"n_slices": 0},
        {"n_slices": 251},
        {"num_cores": 0},
        {"method": "edt"},
        {"field": "x"},
        {"voxel_size_nm": (1, 1)},
        {"voxel_size_nm": (0, 1, 1)},
    ],
)
def test_values_that_make_no_sense_are_refused(tmp_path, options):
    with pytest.raises(ValueError):
        Partitioning(tmp_path, **options)


@pytest.mark.parametrize("case", ["GIP_30_1535_f6", "TAK_30_2213_f6"])
def test_compat_is_the_reference_bit_for_bit(shared_dir, tmp_path, case):
    ne, pm, _ = load_case(shared_dir, case)
    folder = shared_dir / "golden/partitioning"
    facts = json.loads((folder / f"{case}_golden.json").read_text())["new"]
    golden = np.load(folder / f"{case}_golden.npz")
    reference = Partitioning(tmp_path, compat=True, num_cores=2)
    center, ne_edge, pm_edge = reference.extract_ne_pm_edges(pm, ne)
    assert center.tolist() == facts["center"]
    assert (len(ne_edge), len(pm_edge)) == (facts["n_ne_edge"], facts["n_pm_edge"])
    pairs = reference.find_ne_pm_pairs(ne_edge.mean(axis=0), ne_edge, pm_edge, step=3)
    assert np.array_equal(pairs, golden["pairs"])
    reference.n_slices = 7
    cut = (
        reference.shell_partition(pairs, pm)
        if len(pairs) <= 1000
        else reference.shell_partition_optimized(pairs, pm)
    )
    assert [len(points) for points in cut] == facts["shell_sizes"]
    found = reference.create_nepm_radial_partitions(
        ne_edge, pm_edge, pm.shape, n_slices=8, pm_mask=pm, ne_mask=ne
    )
    assert np.array_equal(found, golden["partition_pure"])
    found = reference.create_nepm_radial_partitions_with_edt(ne_edge, pm_edge, pm.shape, 8, pm, ne)
    assert np.array_equal(found, golden["partition_edt"])


def test_compat_says_what_it_has_no_answer_for(tmp_path):
    reference = Partitioning(tmp_path, compat=True)
    ne, pm = balls((40, 44), (5, 18))
    with pytest.raises(ValueError, match="compat takes volumes"):
        reference.extract_ne_pm_edges(pm, ne)
    with pytest.raises(ValueError, match="compat takes volumes"):
        reference.create_nepm_radial_partitions(np.argwhere(ne), np.argwhere(pm), pm.shape)
    ne, pm = balls((20, 20, 20), (3, 8))
    with pytest.raises(ValueError, match="no numbers"):
        reference.extract_ne_pm_edges(np.where(pm, 1, np.nan), ne)
    with pytest.raises(ValueError, match="15 to 200 voxels"):
        reference.create_radial_partitions(pm, ne)
    with pytest.raises(ValueError, match="nucleus has no voxel"):
        reference.extract_ne_pm_edges(pm, ne & False)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["phantom_spheres", "phantom_dent"])
def test_pairs_are_right_against_the_truth_along_rays(shared_dir, partitioning, case):
    ne, pm, truth = load_case(shared_dir, case)
    found = whole(partitioning, ne, pm)
    cytoplasm = pm & ~ne
    assert (found[cytoplasm] == truth["t_ray"][cytoplasm]).mean() >= 0.95
    assert (found[cytoplasm] > 0).all() and not found[~cytoplasm].any()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["phantom_spheres", "phantom_dent"])
def test_the_normalised_position_is_right_against_the_truth_of_distances(shared_dir, partitioning, case):
    ne, pm, truth = load_case(shared_dir, case)
    found = partitioning.create_radial_partitions(pm, ne)
    cytoplasm = pm & ~ne
    assert (found[cytoplasm] == truth["t_edt"][cytoplasm]).mean() >= 0.985
    assert (found[cytoplasm] > 0).all() and not found[~cytoplasm].any()


def test_pairs_guided_by_distances_beat_pairs_on_the_dented_cell(shared_dir, partitioning):
    pytest.importorskip("cytomill.partitioning.pairs_edt")
    ne, pm, truth = load_case(shared_dir, "phantom_dent")
    ne, pm, truth = (volume[::2, ::2, ::2] for volume in (ne, pm, truth["t_edt"]))
    cytoplasm = pm & ~ne
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    guided = partitioning.create_nepm_radial_partitions_with_edt(
        ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne
    )
    plain = partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne)
    right = [(found[cytoplasm] == truth[cytoplasm]).mean() for found in (guided, plain)]
    assert (guided[cytoplasm] > 0).all() and right[0] > right[1]


@pytest.mark.parametrize("field", ["edt", "laplace", "ray"])
def test_every_field_cuts_nested_balls_alike(tmp_path, field):
    ne, pm = balls()
    found = Partitioning(tmp_path, n_slices=4, field=field).create_radial_partitions(pm, ne)
    distance = np.linalg.norm(np.indices(pm.shape).reshape(3, -1).T - np.array(pm.shape) / 2 + 0.5, axis=1)
    t = ((distance - 8) / 10).reshape(pm.shape)
    cytoplasm = pm & ~ne
    expected = np.clip(np.floor(4 * t) + 1, 1, 4)
    assert (found[cytoplasm] == expected[cytoplasm]).mean() > 0.9
    assert np.array_equal(found > 0, cytoplasm)


def test_threads_change_nothing_and_the_step_acts(tmp_path):
    ne, pm = balls()
    one, two = Partitioning(tmp_path, 6), Partitioning(tmp_path, 6, num_cores=3)
    assert np.array_equal(whole(one, ne, pm), whole(two, ne, pm))
    edges = one.extract_ne_pm_edges(pm, ne)
    counts = [len(one.find_ne_pm_pairs(*edges, step=step)) for step in (1, 4, 16)]
    assert counts[0] > 2 * counts[1] > 4 * counts[2] > 0
    assert np.array_equal(one.find_ne_pm_pairs(*edges), two.find_ne_pm_pairs(*edges, step=8))


def test_pairs_join_points_of_the_edges_and_are_saved_on_request(partitioning, tmp_path):
    ne, pm = balls()
    center, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    assert np.allclose(center, np.argwhere(ne).mean(axis=0))
    pairs = partitioning.find_ne_pm_pairs(center, ne_edge, pm_edge, save_txt=True, dataid="cell")
    assert pairs.shape[1] == 6
    assert set(map(tuple, pairs[:, :3])) <= set(map(tuple, ne_edge))
    assert set(map(tuple, pairs[:, 3:])) <= set(map(tuple, pm_edge))
    written = np.loadtxt(tmp_path / "a/root/results/cell_pairs.txt")
    assert np.abs(written - pairs).max() <= 0.005001
    with pytest.raises(ValueError, match="dataid"):
        partitioning.find_ne_pm_pairs(center, ne_edge, pm_edge, save_txt=True)


def test_edges_lie_on_the_surface_between_voxels(partitioning):
    ne, pm = balls(radii=(9, 17))
    center, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    for edge, radius in ((ne_edge, 9), (pm_edge, 17)):
        assert abs(np.linalg.norm(edge - center, axis=1) - radius).mean() < 0.3
        assert edge.shape[1] == 3 and len(edge) > 500


def test_the_smallest_angle_is_found_and_the_first_of_equal_ones():
    points = np.array([[0.0, 0, 5], [0, 3, 0], [0, 6, 0], [1, 1, 1]])
    assert Partitioning.min_angle(points, [0, 9, 0], [0, 0, 0]).tolist() == [0, 3, 0]
    assert Partitioning.min_angle(points, [0, 9, 0], [0, 3, 0]).tolist() == [0, 6, 0]
    with pytest.raises(ValueError, match="no NE points"):
        Partitioning.min_angle(np.empty((0, 3)), [0, 9, 0], [0, 0, 0])


def test_points_along_a_vector_include_both_ends_and_take_lists():
    points = Partitioning.points_along_vector([0, 0, 0], [10, 20, -10], 4)
    assert points.tolist() == [[0, 0, 0], [2.5, 5, -2.5], [5, 10, -5], [7.5, 15, -7.5], [10, 20, -10]]
    with pytest.raises(ValueError, match="at least one part"):
        Partitioning.points_along_vector([0, 0, 0], [1, 1, 1], 0)


def test_shell_surfaces_lie_at_equal_parts_of_every_pair(tmp_path):
    pairs = np.array([[0, 0, 0, 0, 0, 8], [0, 0, 0, 0, 40, 0]])
    partitioning = Partitioning(tmp_path, 4)
    for cut in (partitioning.shell_partition(pairs), partitioning.shell_partition_optimized(pairs)):
        assert [points.tolist() for points in cut][1:4] == [
            [[0, 0, 2 * k], [0, 10 * k, 0]] for k in (1, 2, 3)
        ]
        assert len(cut) == 5 and cut[0].tolist() == [[0, 0, 0]]
    mask = np.zeros((1, 25, 9), bool)
    mask[0, :11] = True
    assert partitioning.shell_partition(pairs, mask)[2].tolist() == [[0, 0, 4]]


def test_older_names_work_and_warn(partitioning):
    ne, pm = balls((24, 24, 24), (4, 10))
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    expected = partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, 4, pm, ne)
    with pytest.warns(DeprecationWarning, match="use create_nepm_radial_partitions$"):
        found = partitioning.create_nepm_radial_partitions_pure_pairs(ne_edge, pm_edge, pm.shape, 4, pm, ne)
    assert np.array_equal(found, expected)
    with pytest.warns(DeprecationWarning, match="use create_nepm_radial_partitions_with_edt$"):
        partitioning.create_shell_based_partitions(ne_edge, pm_edge, pm.shape, 4, pm, ne)
    assert partitioning.n_slices == 8


def test_edges_alone_are_enough(partitioning):
    ne, pm = balls()
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    alone = partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape)
    masks = partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne)
    cytoplasm = pm & ~ne
    assert ((alone > 0) != cytoplasm).sum() < 0.13 * cytoplasm.sum()
    both = cytoplasm & (alone > 0)
    assert (alone[both] == masks[both]).mean() > 0.95


def test_masks_of_any_dtype_give_the_same(partitioning):
    ne, pm = balls((24, 26, 28), (4, 10))
    expected = whole(partitioning, ne, pm)
    for change in (
        lambda mask: mask.astype(np.uint8),
        lambda mask: mask.astype(np.uint8) * 255,
        lambda mask: mask.astype(np.int64) * 7,
        lambda mask: mask.astype(">u2"),
        lambda mask: mask.astype(np.float32) * 2,
    ):
        assert np.array_equal(whole(partitioning, change(ne), change(pm)), expected)


def test_labels_of_one_volume_make_the_masks(tmp_path):
    ne, pm = balls((24, 26, 28), (4, 10))
    labels = pm.astype(np.uint8) * 5
    labels[:12][pm[:12]] = 1
    labels[ne] = 2
    labels[0, 0, :5] = 9
    chosen = Partitioning(tmp_path, ne_labels=[2], pm_labels=[1, 2, 5])
    plain = Partitioning(tmp_path)
    assert np.array_equal(
        chosen.create_radial_partitions(labels, labels), plain.create_radial_partitions(pm, ne)
    )
    np.save(tmp_path / "labels.npy", labels)
    loaded = chosen.load_mask_data(tmp_path / "labels.npy", tmp_path / "labels.npy")
    assert np.array_equal(loaded[0], ne) and np.array_equal(loaded[1], pm)
    assert np.array_equal(
        chosen.create_radial_partitions(loaded[1], loaded[0]), plain.create_radial_partitions(pm, ne)
    )


def test_a_membrane_or_a_cell_without_nucleus_is_filled(partitioning):
    ne, pm = balls((24, 26, 28), (4, 10))
    inner = balls((24, 26, 28), (4, 8))[1]
    expected = partitioning.create_radial_partitions(pm, ne)
    assert np.array_equal(partitioning.create_radial_partitions(pm & ~inner, ne), expected)
    assert any("filled" in note for note in partitioning.notes)
    assert np.array_equal(partitioning.create_radial_partitions(pm & ~ne, ne), expected)


def test_planes_work_in_both_ways(partitioning):
    ne, pm = balls((60, 70), (10, 25))
    center, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    assert center.shape == (2,) and ne_edge.shape[1] == pm_edge.shape[1] == 2
    assert partitioning.find_ne_pm_pairs(center, ne_edge, pm_edge).shape[1] == 4
    found = partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne)
    distances = partitioning.create_radial_partitions(pm, ne)
    cytoplasm = pm & ~ne
    for shells in (found, distances):
        assert shells.shape == pm.shape and np.array_equal(shells > 0, cytoplasm)
    assert (found[cytoplasm] == distances[cytoplasm]).mean() > 0.9
    table = compute_partition_features(distances, voxel_size_nm=(1000, 500, 500))
    assert np.allclose(table["zone_area_um2"], table["zone_volume"] * 0.25)
    assert partitioning.extract_partition_coordinates(distances, 1.0)[1].shape[1] == 2


def test_many_labelled_cells_are_partitioned_at_once(partitioning):
    ne, pm = balls((24, 26, 28), (4, 10))
    cells, nuclei = np.zeros((24, 26, 60), np.uint16), np.zeros((24, 26, 60), np.uint16)
    for label, first in ((3, 0), (7, 30)):
        cells[:, :, first : first + 28][pm] = label
        nuclei[:, :, first : first + 28][ne] = label
    found = partitioning.create_radial_partitions(cells, nuclei)
    alone = partitioning.create_radial_partitions(pm, ne)
    assert np.array_equal(found[:, :, :28], alone) and np.array_equal(found[:, :, 30:58], alone)


def test_a_face_of_the_volume_is_no_membrane(partitioning):
    ne, pm = balls((40, 44, 48), (8, 18))
    half_ne, half_pm = ne[20:], pm[20:]
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(half_pm, half_ne)
    assert ne_edge[:, 0].min() > -0.3 and pm_edge[:, 0].min() > -0.3
    cut = partitioning.create_radial_partitions(half_pm, half_ne)
    full = partitioning.create_radial_partitions(pm, ne)[20:]
    cytoplasm = half_pm & ~half_ne
    assert (cut[cytoplasm] == full[cytoplasm]).mean() > 0.97


def test_anisotropic_voxels_are_respected(tmp_path):
    shape, size = (20, 50, 50), np.array([300.0, 100, 100])
    places = np.indices(shape).reshape(3, -1).T * size
    distance = np.linalg.norm(places - (np.array(shape) - 1) / 2 * size, axis=1).reshape(shape)
    ne, pm = distance <= 900, distance <= 2300
    cytoplasm = pm & ~ne
    expected = np.clip(np.floor(4 * (distance - 900) / 1400) + 1, 1, 4)
    for partitioning in (
        Partitioning(tmp_path, 4, voxel_size_nm=size),
        Partitioning(tmp_path, 4, voxel_size_nm=size, method="pairs"),
    ):
        found = partitioning.create_radial_partitions(pm, ne)
        assert (found[cytoplasm] == expected[cytoplasm]).mean() > 0.9


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda ne, pm: (ne & False, pm), "nucleus mask is empty"),
        (lambda ne, pm: (ne, pm & False), "cell mask is empty"),
        (lambda ne, pm: (ne[1:], pm), "same voxels"),
        (lambda ne, pm: (np.where(ne, np.nan, 0.0), pm), "holds nan"),
        (lambda ne, pm: (ne * 0.5, pm), "whole numbers"),
        (lambda ne, pm: (pm, pm), "no cytoplasm"),
        (lambda ne, pm: (np.roll(ne, 14, axis=0) & ~pm, pm), "outside"),
        (lambda ne, pm: (-ne.astype(int), pm), "whole numbers from 0"),
        (lambda ne, pm: (ne.astype(complex), pm), "dtype complex128"),
    ],
)
def test_bad_masks_get_a_sentence(partitioning, damage, sentence):
    ne, pm = damage(*balls((30, 26, 28), (4, 9)))
    with pytest.raises(ValueError, match=sentence):
        partitioning.extract_ne_pm_edges(pm, ne)
    with pytest.raises(ValueError, match=sentence):
        partitioning.create_radial_partitions(pm, ne)


def test_what_has_no_answer_is_said(partitioning):
    ne, pm = balls((24, 26, 28), (1, 10))
    with pytest.raises(ValueError, match="smaller smooth_sigma"):
        partitioning.extract_ne_pm_edges(pm, ne, smooth_sigma=3)
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne, smooth_sigma=0)
    with pytest.raises(ValueError, match="shape"):
        partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, (3, 4, 5), pm_mask=pm, ne_mask=ne)
    with pytest.raises(ValueError, match="number of shells"):
        partitioning.create_nepm_radial_partitions(ne_edge, pm_edge, pm.shape, 0, pm, ne)


def test_two_nuclei_are_one_and_said(partitioning):
    one, pm = balls((40, 40, 60), (5, 18))
    ne = balls((40, 40, 60), (4, 18), (19.5, 19.5, 20))[0] | balls((40, 40, 60), (4, 18), (19.5, 19.5, 39))[0]
    found = partitioning.create_radial_partitions(pm, ne)
    assert np.array_equal(found > 0, pm & ~ne)
    assert any("2 nuclei" in note for note in partitioning.notes)


# -- files


def write_masks(folder, ne, pm, suffix):
    paths = []
    for name, mask in (("ne", ne), ("pm", pm)):
        path = folder / f"{name}{suffix}"
        values = mask.astype(np.uint8)
        if suffix == ".npy":
            np.save(path, mask)
        elif suffix == ".npz":
            np.savez_compressed(path, values * 255)
        elif suffix == ".tif":
            tifffile.imwrite(path, values * 255, photometric="minisblack")
        elif suffix == ".mrc":
            with mrcfile.new(path) as file:
                file.set_data(mask.astype(np.float32))
        else:
            with h5py.File(path, "w") as file:
                file["mask"] = values
        paths.append(path)
    return paths


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".mrc", ".h5"])
def test_masks_are_read_from_every_format(partitioning, tmp_path, suffix):
    ne, pm = balls((10, 12, 14), (2, 5))
    found = partitioning.load_mask_data(*write_masks(tmp_path, ne, pm, suffix))
    assert [mask.dtype for mask in found] == [bool, bool]
    assert np.array_equal(found[0], ne) and np.array_equal(found[1], pm)


def test_the_voxel_size_of_the_files_is_taken(tmp_path):
    ne, pm = balls((10, 12, 14), (2, 5))
    for name, mask in (("ne", ne), ("pm", pm)):
        tifffile.imwrite(
            tmp_path / f"{name}.ome.tif",
            mask.astype(np.uint8),
            metadata={
                "axes": "ZYX",
                "PhysicalSizeX": 0.1,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": 0.1,
                "PhysicalSizeYUnit": "µm",
                "PhysicalSizeZ": 0.3,
                "PhysicalSizeZUnit": "µm",
            },
        )
    paths = tmp_path / "ne.ome.tif", tmp_path / "pm.ome.tif"
    read, stated = Partitioning(tmp_path), Partitioning(tmp_path, voxel_size_nm=(2, 1, 1))
    read.load_mask_data(*paths)
    stated.load_mask_data(*paths)
    assert np.allclose(read.voxel_size_nm, (300, 100, 100)) and stated.voxel_size_nm == (2, 1, 1)


def test_the_size_of_one_cell_is_not_kept_for_the_next(tmp_path):
    ne, pm = balls((10, 12, 14), (2, 5))
    for size in (2, 3):
        with mrcfile.new(tmp_path / f"{size}.mrc") as file:
            file.set_data(pm.astype(np.float32))
            file.voxel_size = 10 * size
    np.save(tmp_path / "ne.npy", ne)
    np.save(tmp_path / "pm.npy", pm)
    partitioning = Partitioning(tmp_path)
    for size in (2, 3):
        partitioning.load_mask_data(tmp_path / "ne.npy", tmp_path / f"{size}.mrc")
        assert np.allclose(partitioning.voxel_size_nm, size)
    with pytest.raises(ValueError, match="voxels of"):
        partitioning.load_mask_data(tmp_path / "2.mrc", tmp_path / "3.mrc")
    partitioning.load_mask_data(tmp_path / "ne.npy", tmp_path / "pm.npy")
    assert partitioning.voxel_size_nm == (1, 1, 1)


def test_files_that_are_no_masks_are_refused(partitioning, tmp_path):
    ne, pm = balls((10, 12, 14), (2, 5))
    ne_path, pm_path = write_masks(tmp_path, ne, pm, ".npy")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.tif"):
        partitioning.load_mask_data(tmp_path / "nowhere.tif", pm_path)
    with pytest.raises(FileNotFoundError):
        partitioning.load_mask_data(ne_path, tmp_path / "nowhere.tif")
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ValueError, match="no volume that can be read"):
        partitioning.load_mask_data(tmp_path / "text.tif", pm_path)
    np.save(tmp_path / "other.npy", ne[:-1])
    with pytest.raises(ValueError, match="same voxels"):
        partitioning.load_mask_data(tmp_path / "other.npy", pm_path)
    np.save(tmp_path / "nan.npy", np.where(ne, np.nan, 0))
    with pytest.raises(ValueError, match="nan"):
        partitioning.load_mask_data(tmp_path / "nan.npy", pm_path)


# -- smoothing


def test_smoothing_takes_masks_and_not_values():
    _, pm = balls((30, 32, 34), (2, 10))
    expected = Partitioning.smooth_mask(pm)
    assert expected.dtype == np.uint8 and expected.max() == 1
    for values in (pm.astype(np.uint8) * 255, pm * 2.0, pm.astype(np.int16)):
        assert np.array_equal(smooth_mask(values), expected)
    assert abs(int(expected.sum()) - int(pm.sum())) < 0.02 * pm.sum()


def test_smoothing_gives_the_references_voxels_away_from_the_faces(shared_dir):
    from cytomill.partitioning import pairs_compat

    ne, pm, _ = load_case(shared_dir, "GIP_30_1535_f6")
    for mask in (np.pad(ne, 4), np.pad(pm, 4)):
        assert np.array_equal(smooth_mask(mask), pairs_compat.smooth_mask(mask))


def test_smoothing_eats_nothing_at_the_faces():
    assert smooth_mask(np.ones((10, 10, 10), bool)).all()
    assert smooth_mask(np.ones((10, 10), np.uint8) * 255).all()


def test_smoothing_by_slabs_changes_nothing(monkeypatch):
    from cytomill.partitioning import smoothing

    rng = np.random.default_rng(0)
    mask = rng.random((40, 9, 11)) < 0.5
    expected = smooth_mask(mask, 1.3, 1)
    monkeypatch.setattr(smoothing, "_SLAB_VOXELS", 99)
    assert np.array_equal(smooth_mask(mask, 1.3, 1), expected)


@pytest.mark.parametrize("values", [(-1, 2), (np.nan, 2), (1, -1)])
def test_smoothing_by_less_than_nothing_is_refused(values):
    with pytest.raises(ValueError, match="at least 0"):
        smooth_mask(np.ones((3, 3, 3)), *values)


# -- the whole way


def test_the_documented_workflow_runs_from_masks_to_rdf(tmp_path):
    ne, pm = balls((40, 44, 48), (6, 18))
    partitioning = Partitioning(root_dir=tmp_path, n_slices=4, voxel_size_nm=(60, 50, 50), seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        center, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
        partition = partitioning.create_nepm_radial_partitions(
            ne_edge, pm_edge, shape=pm.shape, n_slices=4, pm_mask=pm, ne_mask=ne
        )
        coords = partitioning.extract_partition_coordinates(partition, sampling_density=0.05)
        written = partitioning.save_partition_coords_to_xvg(
            coords, dataid="cell_01", output_dir=tmp_path / "p"
        )
        read = package.load_partition_coords_from_xvg(tmp_path / "p" / "cell_01_partition_coords.xvg")
        organelle = partition >= 3
        full = calculate_rdf_from_xvg(
            organelle, partitioning.extract_partition_coordinates(partition, 1.0), bins=4
        )
        sampled = calculate_rdf_from_xvg(organelle_mask=organelle, partition_coords=read, bins=4)
    assert written == str(tmp_path / "p") and read.voxel_size_nm == (60, 50, 50)
    assert list(coords) == [1, 2, 3, 4] and all(isinstance(i, int) for i in coords)
    assert full["rdf"][:2].tolist() == [0, 0] and np.allclose(sampled["rdf"], full["rdf"], atol=0.1)


def test_features_are_counted_zone_by_zone():
    rng = np.random.default_rng(2)
    partition = rng.integers(0, 5, (7, 8, 9))
    partition[partition == 3] = 0
    organelles = {"mito": rng.random((7, 8, 9)) < 0.4, "labels": rng.integers(0, 3, (7, 8, 9))}
    table = compute_partition_features(partition, organelles, (300, 100, 100))
    assert table["zone_id"].tolist() == [1, 2, 3, 4]
    for row in table.itertuples():
        zone = partition == row.zone_id
        assert row.zone_volume == zone.sum()
        assert np.isclose(row.zone_volume_um3, zone.sum() * 3e-3)
        assert row.mito_count == (zone & organelles["mito"]).sum()
        assert row.labels_count == (zone & (organelles["labels"] > 0)).sum()
        if zone.any():
            centre = row.zone_center_z, row.zone_center_y, row.zone_center_x
            assert np.allclose(centre, np.argwhere(zone).mean(axis=0))
            assert np.isclose(row.mito_density, row.mito_count / zone.sum())
        else:
            assert np.isnan([row.zone_center_z, row.mito_density]).all()
    unnamed = compute_partition_features(partition, list(organelles.values()))
    assert "organelle_2_count" in unnamed and "zone_volume_um3" not in unnamed
    with pytest.raises(ValueError, match="both must agree"):
        compute_partition_features(partition, np.zeros((7, 8, 8)))


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    ne, pm = balls((24, 26, 28), (4, 10))
    for name, mask in (("nucleus", ne), ("cell", pm)):
        tifffile.imwrite(tmp_path / f"{name}.tif", mask.astype(np.uint8) * 255, photometric="minisblack")
    np.save(tmp_path / "granules.npy", np.random.default_rng(0).random(pm.shape) < 0.1)
    text = (Path(__file__).resolve().parents[2] / "docs/partitioning-api.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    variables = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "partitioning-api.md", "exec"), variables)
    for name in ("slice.png", "shells.png", "zones.png", "rdf.png", "rdf/cell_01_rdf.csv"):
        assert (tmp_path / "results" / name).stat().st_size > 100
    keys = re.findall(
        r"^\| `(\w+)`(?:, `(\w+)`)? \|", text.partition("| key |")[2].partition("\n\n")[0], flags=re.MULTILINE
    )
    assert {key for row in keys for key in row if key} == set(variables["rdf"])
    layouts = text.partition("| `layout` |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(documented|reference|older [\w\- ]+)`", layouts)) == {
        *(xvg.DOCUMENTED, xvg.REFERENCE, xvg.SHELLS, xvg.NE_EDGE, xvg.PM_EDGE, xvg.PAIRS)
    }
