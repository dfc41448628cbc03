"""The class API: fit, predict, save, load and label one stack in a Zarr store."""

import json
import shutil

import numpy as np
import pytest
from array_modules import fake_cupy, needs_gpu

from cytomill.kernels.binning import Binning, to_bins
from cytomill.kernels.labelling import label_volume
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.downsample import downsample_posterior
from cytomill.nanoparticles.layout import output_layout
from cytomill.nanoparticles.segmentation import NanoparticleSegmentation, label_nanoparticles
from cytomill.nanoparticles.slabs import slab_histograms, slab_posterior
from cytomill.storage.stores import open_store
from cytomill.storage.volumes import open_volume

SPACING = "50-10-10"


def phantom(depth=6, dtype=np.uint8, scale=1, discs=2):
    """Tissue with bright discs in all slices but the last."""
    rng = np.random.default_rng(11)
    volume = rng.normal(110, 9, (depth, 96, 128))
    y, x = np.mgrid[:96, :128]
    for z in range(depth - 1):
        for cy, cx in rng.uniform((8, 8), (88, 120), (discs, 2)):
            volume[z, (y - cy) ** 2 + (x - cx) ** 2 <= 10] = rng.normal(215, 8)
    return np.clip(volume * scale, 0, np.iinfo(dtype).max).astype(dtype)


def write(root, volume):
    store = open_store(root)
    array = store.create(f"images/{SPACING}", volume.shape, volume.dtype, (1, 64, 64))
    array.write((), volume)
    return root


def settings(root, **changes):
    given = {"estimator": "reference", "zarr_chunks": (1, 64, 64), "model_name": "m", **changes}
    return NanoparticleSegConfig(root_path=str(root), spacing_dir=SPACING, **given)


@pytest.fixture
def root(tmp_path):
    return write(tmp_path / "stack.zarr", phantom())


def read(root, name):
    return open_store(root).open(name).read()


def test_particles_are_found_where_they_are(root):
    model = NanoparticleSegmentation(settings(root)).fit()
    posterior = model.predict()
    assert posterior.voxel_size_nm == (50, 10, 10)
    values = posterior.read()
    truth = phantom() > 180
    found = values >= np.float16(0.95)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95
    count = label_nanoparticles(str(root), SPACING, 0.95)
    assert np.array_equal(read(root, f"labels/nps/masks/{SPACING}"), label_volume(values, 0.95))
    assert count == read(root, f"labels/nps/masks/{SPACING}").max() > 0


@pytest.mark.parametrize("estimator", ["reference", "robust"])
def test_a_loaded_model_is_complete_and_predicts_the_same(estimator, tmp_path):
    root = write(tmp_path / "stack.zarr", phantom(discs=10))
    config = settings(root, estimator=estimator)
    model = NanoparticleSegmentation(config).fit()
    first = model.predict().read()
    model.save(tmp_path / "model")
    assert {p.name for p in (tmp_path / "model").iterdir()} == {
        "training_manifest.json", "model_params.npz", "fit_results.json",
    }  # fmt: skip
    results = json.loads((tmp_path / "model" / "fit_results.json").read_text())
    assert results == model.summary_fit and set(results) == {"w_bg", "nll", "nit", "converged"}
    shutil.rmtree(root / "labels")

    loaded = NanoparticleSegmentation(config).load(tmp_path / "model")
    for name in ("th_low", "th_high", "summary_fit", "notes", "binning"):
        assert getattr(loaded, name) == getattr(model, name), name
    for name in ("hist_stack", "hist_bg", "p_stack", "p_bg", "p_np"):
        assert np.array_equal(getattr(loaded, name), getattr(model, name)), name
    assert np.array_equal(loaded.predict().read(), first)


def test_saved_arrays_hold_no_pickle(root, tmp_path):
    model = NanoparticleSegmentation(settings(root)).fit()
    model.save(tmp_path)
    with np.load(tmp_path / "model_params.npz", allow_pickle=False) as archive:
        assert {"p_np", "p_bg", "hist_stack", "usable"} <= set(archive.files)
        for name in archive.files:
            assert not archive[name].dtype.hasobject


def test_an_array_that_needs_pickle_is_refused(root, tmp_path):
    config = settings(root)
    NanoparticleSegmentation(config).fit().save(tmp_path)
    np.savez(tmp_path / "model_params.npz", p_np=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="cannot be read"):
        NanoparticleSegmentation(config).load(tmp_path)


@pytest.mark.parametrize("name", ["training_manifest.json", "model_params.npz", "fit_results.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty object"])
def test_a_damaged_model_is_refused_by_name(name, damage, root, tmp_path):
    config = settings(root)
    NanoparticleSegmentation(config).fit().save(tmp_path)
    if damage == "missing":
        (tmp_path / name).unlink()
    elif damage == "truncated":
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    else:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=str(tmp_path)) as refusal:
        NanoparticleSegmentation(config).load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_model_of_the_other_estimator_is_refused(root, tmp_path):
    NanoparticleSegmentation(settings(root)).fit().save(tmp_path)
    with pytest.raises(ValueError, match="estimator 'reference'.*'robust'"):
        NanoparticleSegmentation(settings(root, estimator="robust")).load(tmp_path)


@pytest.mark.parametrize("estimator", ["reference", "robust"])
def test_a_model_serves_stacks_of_another_depth(estimator, tmp_path):
    stack = phantom(discs=10)
    fit_on = write(tmp_path / "fit.zarr", stack)
    model = NanoparticleSegmentation(settings(fit_on, estimator=estimator)).fit()
    model.save(tmp_path / "model")
    other = write(tmp_path / "other.zarr", stack[2:5])
    loaded = NanoparticleSegmentation(settings(other, estimator=estimator)).load(tmp_path / "model")
    assert np.array_equal(loaded.predict().read(), model.predict().read()[2:5])


def test_a_loaded_model_judges_the_slices_of_its_own_stack(tmp_path):
    stack = phantom(discs=10)
    fit_on = write(tmp_path / "fit.zarr", stack)
    model = NanoparticleSegmentation(settings(fit_on, estimator="robust")).fit()
    model.save(tmp_path / "model")
    other = stack.copy()
    other[1] = 0
    other[3] += 20
    root = write(tmp_path / "other.zarr", other)
    loaded = NanoparticleSegmentation(settings(root, estimator="robust")).load(tmp_path / "model")
    posterior = loaded.predict().read()
    assert loaded.mixture.usable.tolist() == [True, False, True, True, True, True]
    assert np.array_equal(loaded.mixture.slice_shift.round(), [0, 0, 0, 20, 0, 0])
    found, truth = posterior >= np.float16(0.5), (stack > 180) & (other > 0)
    assert 2 * (found & truth)[3].sum() / (found[3].sum() + truth[3].sum()) > 0.95
    assert not posterior[1].any()


def test_a_model_of_another_pixel_type_is_refused(root, tmp_path):
    NanoparticleSegmentation(settings(root)).fit().save(tmp_path / "model")
    wide = write(tmp_path / "wide.zarr", phantom(dtype=np.uint16, scale=150))
    model = NanoparticleSegmentation(settings(wide)).load(tmp_path / "model")
    with pytest.raises(ValueError, match="fitted on uint8 and the stack in .*wide.zarr is uint16"):
        model.predict()
    assert not (wide / "labels").exists()


@pytest.mark.parametrize("call", ["predict", "save", "summary_fit", "p_np", "th_low"])
def test_nothing_is_given_before_fit_or_load(call, root, tmp_path):
    model = NanoparticleSegmentation(settings(root))
    with pytest.raises(RuntimeError, match=r"call fit\(\) or load"):
        if call == "predict":
            model.predict()
        elif call == "save":
            model.save(tmp_path)
        else:
            getattr(model, call)
    assert not (root / "labels").exists()


@pytest.mark.parametrize("slab_bytes", [1, 40_000, 1 << 26])
def test_the_cut_into_slabs_changes_nothing(slab_bytes, root, monkeypatch):
    whole = NanoparticleSegmentation(settings(root)).fit()
    monkeypatch.setattr("cytomill.nanoparticles.layout.SLAB_BYTES", slab_bytes)
    model = NanoparticleSegmentation(settings(root, shard_shape=(2, 64, 64))).fit()
    assert model.summary_fit == whole.summary_fit
    assert np.array_equal(model.slices.tables, whole.slices.tables)
    assert np.array_equal(model.predict().read(), whole.predict().read())


def test_16_bit_values_below_256_give_the_8_bit_result(root, tmp_path):
    wide = write(tmp_path / "wide.zarr", phantom(dtype=np.uint16))
    eight = NanoparticleSegmentation(settings(root)).fit()
    sixteen = NanoparticleSegmentation(settings(wide)).fit()
    assert sixteen.binning == Binning()
    assert np.array_equal(sixteen.predict().read(), eight.predict().read())


def test_16_bit_data_are_binned_and_segmented(tmp_path):
    root = write(tmp_path / "wide.zarr", phantom(dtype=np.uint16, scale=150))
    model = NanoparticleSegmentation(settings(root)).fit()
    assert model.binning.low > 255 and model.binning.high > 25_000
    found = model.predict().read() >= np.float16(0.95)
    truth = phantom() > 180
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95


def test_dark_particles_are_those_of_the_inverted_stack(root, tmp_path):
    inverted = write(tmp_path / "dark.zarr", 255 - phantom())
    bright = NanoparticleSegmentation(settings(root)).fit()
    dark = NanoparticleSegmentation(settings(inverted, polarity="dark")).fit()
    assert dark.binning.reverse
    assert dark.summary_fit == bright.summary_fit
    assert np.array_equal(dark.predict().read(), bright.predict().read())


def test_the_robust_estimator_guesses_the_polarity_and_says_so(tmp_path):
    inverted = write(tmp_path / "dark.zarr", 255 - phantom(discs=10))
    model = NanoparticleSegmentation(settings(inverted, estimator="robust")).fit()
    assert model.binning.reverse
    assert any("dark" in note for note in model.notes)


def test_the_8_bit_posterior_states_its_scale(root):
    model = NanoparticleSegmentation(settings(root, posterior_dtype="uint8")).fit()
    array = model.predict()
    half = NanoparticleSegmentation(settings(root)).fit().slices.tables
    assert array.dtype == np.uint8 and array.attributes["posterior_scale"] == 1 / 255
    bins = to_bins(phantom(), Binning())
    exact = np.stack([255 * half[z].astype(float)[bins[z]] for z in range(6)])
    assert np.abs(array.read() - exact).max() <= 0.6


def test_the_downsampled_posterior_has_its_own_spacing(root):
    model = NanoparticleSegmentation(settings(root, downsample=(2, 5, 5), shard_shape=(1, 64, 64))).fit()
    fine = model.predict().read()
    coarse = open_store(root).open("labels/nps/posterior/100-50-50")
    assert coarse.voxel_size_nm == (100, 50, 50) and coarse.attributes["spacing"] == [100, 50, 50]
    assert np.array_equal(coarse.read(), downsample_posterior(fine, (2, 5, 5)))
    assert open_volume(f"{root}::/labels/nps/posterior/100-50-50").voxel_size_nm == (100, 50, 50)


@pytest.mark.parametrize(
    ("shard_shape", "shards"),
    [((4, 100, 700), (4, 64, 640)), ((1, 1, 1), (1, 64, 64)), (None, (1, 128, 128))],
)
def test_shards_are_whole_chunks(shard_shape, shards, root):
    layout = output_layout(settings(root, shard_shape=shard_shape), (6, 96, 128), np.float16)
    assert layout == ((1, 64, 64), shards)


def test_labels_are_written_in_the_shards_asked_for(root):
    NanoparticleSegmentation(settings(root)).fit().predict()
    shape = {"zarr_chunks": (1, 64, 64), "shard_shape": (3, 64, 128)}
    count = label_nanoparticles(str(root), SPACING, 0.95, **shape)
    masks = open_store(root).open(f"labels/nps/masks/{SPACING}")
    assert masks.chunks == (1, 64, 64) and masks.shards == (3, 64, 128)
    whole = label_volume(read(root, f"labels/nps/posterior/{SPACING}"), 0.95)
    assert np.array_equal(masks.read(), whole) and count == whole.max()


def test_padding_is_no_data_for_the_robust_estimator_alone(tmp_path):
    stack = phantom(discs=10)
    stack[:, :20] = 0
    root = write(tmp_path / "padded.zarr", stack)
    robust = NanoparticleSegmentation(settings(root, estimator="robust")).fit()
    reference = NanoparticleSegmentation(settings(root)).fit()
    assert robust.hist_stack[0] == 0 and reference.hist_stack[0] == stack[:, :20].size
    assert any(note.startswith("padding: 20.8 %") for note in robust.notes)


def test_outputs_say_what_they_were_made_of(root):
    NanoparticleSegmentation(settings(root)).fit().predict()
    label_nanoparticles(str(root), SPACING, 0.95, radius=2)
    posterior = open_store(root).open(f"labels/nps/posterior/{SPACING}").attributes
    masks = open_store(root).open(f"labels/nps/masks/{SPACING}").attributes
    assert posterior["inputs"] == [f"images/{SPACING}"]
    assert posterior["processing"][0]["parameters"]["estimator"] == "reference"
    assert masks["inputs"] == [f"labels/nps/posterior/{SPACING}"]
    assert masks["processing"][0]["radius"] == 2


def test_images_are_left_as_they_were(root):
    before = {p: p.read_bytes() for p in (root / "images").rglob("*") if p.is_file()}
    model = NanoparticleSegmentation(settings(root)).fit()
    model.predict()
    label_nanoparticles(str(root), SPACING, 0.95)
    assert before == {p: p.read_bytes() for p in (root / "images").rglob("*") if p.is_file()}


def test_predicting_twice_replaces_the_first(root):
    model = NanoparticleSegmentation(settings(root)).fit()
    first = model.predict().read()
    assert np.array_equal(model.predict().read(), first)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"root_path": ""}, "no Zarr v3 store"), ({"spacing_dir": "1-1-1"}, "has no array images/1-1-1")],
)
def test_a_stack_that_is_not_there_is_refused(changes, sentence, root):
    config = settings(root)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=sentence):
        NanoparticleSegmentation(config).fit()


def test_labelling_without_a_posterior_is_refused(root):
    with pytest.raises(ValueError, match=f"has no array labels/nps/posterior/{SPACING}"):
        label_nanoparticles(str(root), SPACING, 0.5)


def test_verbose_says_what_happens_and_is_silent_otherwise(root, capsys):
    NanoparticleSegmentation(settings(root)).fit()
    assert capsys.readouterr().out == ""
    NanoparticleSegmentation(settings(root, verbose=True)).fit().predict()
    assert "th_low" in capsys.readouterr().out


def test_device_slabs_go_through_the_device_kernels(monkeypatch):
    cupy = fake_cupy(monkeypatch)
    slab = phantom()[:2]
    tables = np.random.default_rng(0).random((2, 256)).astype(np.float16)
    binning = Binning(reverse=True)
    device = cupy.asarray(slab)
    assert np.array_equal(slab_histograms(device, binning), slab_histograms(slab, binning))
    assert np.array_equal(slab_posterior(device, binning, tables), slab_posterior(slab, binning, tables))
    assert {"bincount", "take"} <= set(cupy.calls)


@pytest.mark.gpu
def test_device_slabs_equal_host_slabs():
    cupy = needs_gpu()
    slab = phantom()
    tables = np.random.default_rng(0).random((len(slab), 256)).astype(np.float16)
    device = cupy.asarray(slab)
    assert np.array_equal(slab_histograms(device, Binning()), slab_histograms(slab, Binning()))
    assert np.array_equal(slab_posterior(device, Binning(), tables), slab_posterior(slab, Binning(), tables))
