"""Options of the nanoparticle pipeline that make no sense are refused with one sentence."""

import numpy as np
import pytest

from cytomill.nanoparticles.config import WHOLE, WHOLE_TRIPLES, NanoparticleSegConfig


def configured(**options):
    return NanoparticleSegConfig(root_path="a.zarr", spacing_dir="50-10-10", **options)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), "2", True, None])
def test_numbers_that_are_not_whole_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number") as refusal:
        configured(**{name: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", WHOLE_TRIPLES)
def test_shapes_that_are_not_whole_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be a whole number, found 1.9"):
        configured(**{name: (1.9, 2, 2)})


def test_whole_numbers_of_any_kind_become_ints():
    config = configured(max_iter=np.int64(7), radius=2.0, zarr_chunks=np.array([1, 64, 64]))
    assert (config.max_iter, config.radius, config.zarr_chunks) == (7, 2, (1, 64, 64))
    assert all(type(v) is int for v in (config.max_iter, config.radius, *config.zarr_chunks))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/tmp/x", "a\n", "a\0"])
def test_a_model_name_that_leaves_its_folder_is_refused(name):
    with pytest.raises(ValueError, match="model_name must be a folder's name") as refusal:
        configured(model_name=name)
    assert "\n" not in str(refusal.value)


def test_usual_model_names_are_taken():
    for name in ("nps-20250101-101010", "my model", "v1.2", "Zellkern-é"):
        assert configured(model_name=name).model_name == name
