"""The class API: the documented signatures, the reference bit by bit, the truth, the whole way to an RDF."""

import inspect
import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from api_cases import balls, load_case, whole

import cytomill.partitioning as package
from cytomill.partitioning import Partitioning, calculate_rdf_from_xvg, xvg_reading

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
        *(xvg_reading.DOCUMENTED, xvg_reading.REFERENCE, xvg_reading.SHELLS),
        *(xvg_reading.NE_EDGE, xvg_reading.PM_EDGE, xvg_reading.PAIRS),
    }
