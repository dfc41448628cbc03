"""Synthetic data of a finished dataset, a campaign and a preview: what the campaign would collect."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cytomill.nanoparticles.model import PARTICLES
from cytomill.partitioning.masks import RefusedCell
from cytomill.reports import nested_shells
from cytomill.reports.campaign import CampaignReport, DatasetRow
from cytomill.reports.data import DatasetReport, ExampleSlice, SetAside, StageTiming
from cytomill.reports.partition_examples import ExampleCell, encode
from cytomill.reports.partitioning import PartitionReport
from cytomill.reports.preview import PreviewDataset, PreviewReport, PreviewSlice
from cytomill.reports.truth import Calibration

BINS = np.arange(256)


def synthetic_slice(side: int, particles: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A cell-like image with bright spots in clusters, its posterior and its labels."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(
        rng.normal(size=(side, side)).astype(np.float32), side / 40, mode="wrap"
    )
    texture /= texture.std()
    truth = np.zeros((side, side), np.float32)
    hubs = rng.uniform(0.15, 0.85, (3, 2)) * side
    for _ in range(particles):
        centre = hubs[rng.integers(3)] + rng.normal(0, side / 14, 2)
        y, x = np.clip(centre, 8, side - 9).astype(int)
        radius = rng.uniform(1.5, 4.5)
        reach = int(radius) + 1
        grid = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
        part = truth[y - reach : y + reach + 1, x - reach : x + reach + 1]
        np.maximum(part, grid <= radius, out=part)
    image = 96 + 9 * texture + 62 * ndimage.gaussian_filter(truth, 0.7) + rng.normal(0, 8, (side, side))
    image = np.clip(image, 0, 255).astype(np.uint8)
    posterior = 1 / (1 + np.exp(-(image.astype(np.float32) - 138) / 4))
    labels, _ = ndimage.label(ndimage.binary_closing(posterior >= 0.5))
    sizes = np.bincount(labels.ravel())
    labels[sizes[labels] < 6] = 0
    return image, posterior, labels


def synthetic_particles(number: int, depth: int, seed: int = 0) -> pd.DataFrame:
    """A particle table with the columns of the measurements stage."""
    rng = np.random.default_rng(seed)
    diameter = rng.lognormal(np.log(0.12), 0.35, number)
    volume = np.pi / 6 * diameter**3
    centre = rng.uniform(0, 1, (number, 3)) * (depth * 50, 20480, 20480)
    return pd.DataFrame(
        {
            "label": np.arange(1, number + 1),
            "voxel_count": np.maximum(10, volume / 5e-6).astype(np.int64),
            "volume_um3": volume,
            "equivalent_diameter_um": diameter,
            "centroid_z_nm": centre[:, 0],
            "centroid_y_nm": centre[:, 1],
            "centroid_x_nm": centre[:, 2],
            "mean_intensity": rng.normal(158, 6, number),
            "mean_posterior": rng.uniform(0.8, 1, number),
            "posterior_volume_um3": volume * 0.9,
            "axis_major_um": diameter * 1.3,
            "axis_middle_um": diameter,
            "axis_minor_um": diameter * 0.8,
        }
    )


def synthetic_timings(ranks: int = 4) -> list[StageTiming]:
    """Six stages, the last ones with idle ranks."""
    rng = np.random.default_rng(3)
    stages = [
        ("slice histograms", 64, 3.2),
        ("background", 64, 5.6),
        ("fit", 1, 0.4),
        ("posterior", 64, 9.8),
        ("labels", 48, 21.5),
        ("measurements", 48, 6.1),
    ]
    return [
        StageTiming(
            name,
            units,
            seconds,
            list(seconds * rng.uniform(0.8, 0.99, ranks)) if units > 1 else [seconds] + [0.0] * (ranks - 1),
            units * 16_800_000,
            units * 2_100_000,
            list((700e6 + 40e6 * rng.random(ranks)).astype(int)),
            800_000_000,
        )
        for name, units, seconds in stages
    ]


def synthetic_dataset(depth: int = 64, side: int = 512, examples: int = 3, **changes) -> DatasetReport:
    """A dataset that went well, with two blank slices; `changes` replace fields."""
    rng = np.random.default_rng(7)
    p_bg = np.exp(-0.5 * ((BINS - 96) / 11) ** 2) + 2e-5 * np.exp(-0.5 * ((BINS - 100) / 24) ** 2)
    p_np = np.exp(-0.5 * ((BINS - 157) / 12) ** 2)
    p_bg, p_np = p_bg / p_bg.sum(), p_np / p_np.sum()
    steps = 138 + 2 * np.sin(np.arange(depth) / 9)
    w_bg = 0.9917
    total = depth * 2048 * 2048
    usable = np.ones(depth, bool)
    usable[depth // 3 : depth // 3 + 2] = depth < 6
    pi_ml = 0.0083 * (1 + 0.5 * np.sin(np.arange(depth) / 9)) + rng.normal(0, 3e-4, depth)
    fields = dict(
        name="HeLa-AuNP-24h",
        pipeline="nanoparticles",
        verdict=PARTICLES,
        notes=(
            "Slices 21 and 22 are blank and were set aside.",
            "Particles are brighter than the background.",
        ),
        provenance={
            "cytomill": {"version": "0.1.0", "commit": "0123456789abcdef"},
            "configuration": {"estimator": "robust", "beta_params": [1.0, 20.0], "closing_nm": None},
            "input": {"path": "data/HeLa.mrc", "bytes": 268435456, "crc32c": list(range(64))},
            "machines": {
                "ranks": 4,
                "hosts": ["node-a", "node-b"],
                "devices": ["cpu"] * 4,
                "container": None,
            },
            "times": {"started": "2026-01-05T21:04:11+01:00", "finished": "2026-01-05T21:04:58+01:00"},
        },
        voxel_size_nm=(50.0, 10.0, 10.0),
        shape=(depth, 2048, 2048),
        dtype="uint8",
        hist_stack=rng.poisson(total * (w_bg * p_bg + (1 - w_bg) * p_np)),
        hist_bg=rng.poisson(total * 0.8 * np.where(BINS < 140, p_bg, 0)),
        p_bg=p_bg,
        p_np=p_np,
        w_bg=w_bg,
        th_low=129,
        th_high=140,
        summary={"w_bg": w_bg, "nll": 3.8417, "nit": 214, "converged": True},
        pi_map=pi_ml * 0.93,
        pi_ml=pi_ml,
        usable=usable,
        slice_shift=3 * np.sin(np.arange(depth) / 20),
        tables=1 / (1 + np.exp(-(BINS - steps[:, None]) / 4)),
        load=0.0079,
        posterior_th=0.5,
        examples=[
            ExampleSlice(z, *synthetic_slice(side, 90, z))
            for z in sorted({depth // 6, depth // 2, 5 * depth // 6})[:examples]
        ],
        particles=synthetic_particles(1874, depth),
        particles_path="HeLa-AuNP-24h/tables/particles.parquet",
        timings=synthetic_timings(),
        calibration=Calibration(
            np.linspace(0.05, 0.95, 10),
            np.linspace(0.05, 0.95, 10) ** 1.1,
            np.geomspace(1e7, 500, 10).astype(int),
            threshold=0.5,
            dice=0.953,
            precision=0.961,
            recall=0.945,
            true_load=0.0081,
        ),
        campaign="gold uptake, January",
        campaign_link="../index.html",
    )
    return DatasetReport(**(fields | changes))


def synthetic_campaign(**changes) -> CampaignReport:
    """Four datasets, one of them set aside."""
    rows = [
        DatasetRow(
            "HeLa-AuNP-24h",
            "nanoparticles",
            PARTICLES,
            "finished",
            "HeLa-AuNP-24h/report.html",
            1874,
            0.0079,
            0.121,
            (64, 2048, 2048),
            (50.0, 10.0, 10.0),
            2,
            0,
            47.0,
            0.0083,
        ),
        DatasetRow(
            "HeLa-AuNP-4h",
            "nanoparticles",
            PARTICLES,
            "finished",
            "HeLa-AuNP-4h/report.html",
            412,
            0.0017,
            0.117,
            (64, 2048, 2048),
            (50.0, 10.0, 10.0),
            0,
            0,
            44.0,
            0.0019,
            False,
        ),
        DatasetRow(
            "HeLa-control",
            "nanoparticles",
            "no particles",
            "finished",
            "HeLa-control/report.html",
            0,
            0.0,
            None,
            (64, 2048, 2048),
            (50.0, 10.0, 10.0),
            0,
            0,
            39.0,
        ),
        DatasetRow(
            "HeLa-AuNP-72h", "nanoparticles", "", "set aside", "", shape=(64, 2048, 2048), units_set_aside=1
        ),
    ]
    fields = dict(
        name="gold uptake, January",
        started="2026-01-05 21:04:11 +01:00",
        finished="2026-01-05 21:07:02 +01:00",
        state="finished with failures",
        ranks=4,
        hosts=["node-a", "node-b"],
        provenance={"cytomill": {"version": "0.1.0"}},
        datasets=rows,
        set_aside=[
            SetAside(
                "slice histograms",
                "z 16–32",
                3,
                "data/72h.mrc: 268 435 456 bytes expected, 130 023 424 found; "
                "the file is truncated, copy it again.",
                "HeLa-AuNP-72h",
            )
        ],
        timings=synthetic_timings(),
    )
    return CampaignReport(**(fields | changes))


def synthetic_preview(side: int = 512, slices: int = 2, **changes) -> PreviewReport:
    """Two datasets with a few slices, and one that could not be read."""

    def part(z):
        image, posterior, _ = synthetic_slice(side, 90, z)
        return PreviewSlice(z, image, posterior)

    size = (50.0, 10.0, 10.0)
    datasets = [
        PreviewDataset(
            name, [part(10 * i + j) for j in range(slices)], (64, side, side), size, PARTICLES, (), 0.5
        )
        for i, name in enumerate(("HeLa-AuNP-24h", "HeLa-AuNP-4h"))
    ]
    datasets.append(PreviewDataset("HeLa-AuNP-72h", notes=("data/72h.mrc is truncated, copy it again.",)))
    return PreviewReport(**(dict(campaign="gold uptake, January", datasets=datasets, min_pixels=4) | changes))


def synthetic_codes(
    shape: tuple[int, int, int] = (20, 54, 60),
    voxel_size_nm: tuple[float, float, float] = (300.0, 110.0, 110.0),
    n_shells: int = 8,
) -> np.ndarray:
    """Concentric ellipsoids: nucleus at a third of the cell's radius, shells at equal steps between."""
    grid = np.ix_(*(np.linspace(-1, 1, n) * 1.1 if n > 1 else np.zeros(1) for n in shape))
    radius = np.sqrt(sum(g**2 for g in grid))
    t = (radius - 1 / 3) / (2 / 3)
    shells = np.where((t > 0) & (t < 1), np.floor(n_shells * t) + 1, 0).astype(np.uint8)
    return encode(shells, t <= 0)


def synthetic_partition(
    cells: int = 2, organelles: tuple[str, ...] = ("granules",), n_shells: int = 8, **changes
) -> PartitionReport:
    """A dataset of a few cells; the second is cut by the volume, the last shell of the first has no g."""
    size, shape = (300.0, 110.0, 110.0), (20, 54, 60)
    rng = np.random.default_rng(5)
    shell = np.arange(1, n_shells + 1)
    tables: dict[str, list] = {
        name: [] for name in ("cells", "shells", "rdf", "profiles", "objects", "uptake")
    }
    for cell in range(1, cells + 1):
        voxels = 400 * shell**2
        censored = voxels // 10 if cell == 2 else 0 * voxels
        volume = voxels * np.prod(size) / 1e9
        tables["cells"].append(
            {
                "cell": cell,
                "condition": "control",
                "replicate": "1",
                "cell_volume_um3": volume.sum() + 60,
                "nucleus_volume_um3": 60.0,
                "cytoplasm_volume_um3": volume.sum(),
                "cytoplasm_voxels": voxels.sum(),
                "nuclei": 1 + (cell == 2),
                "censored_fraction": censored.sum() / voxels.sum(),
                "cut_faces": "z0" if cell == 2 else "",
                "note": "",
            }
        )
        common = {"cell": cell, "shell": shell}
        tables["shells"].append(
            pd.DataFrame(
                common
                | {
                    "t_low": (shell - 1) / n_shells,
                    "t_high": shell / n_shells,
                    "voxel_count": voxels,
                    "volume_um3": volume,
                    "censored_voxels": censored,
                }
            )
        )
        for name in organelles:
            g = 0.5 + shell / n_shells + 0.03 * cell
            if cell == 1:
                g = np.where(shell == n_shells, np.nan, g)
            tables["rdf"].append(
                pd.DataFrame(
                    common
                    | {
                        "organelle": name,
                        "organelle_voxels": voxels // 50,
                        "cytoplasm_voxels": voxels,
                        "g": g,
                        "g_uncensored": g * (1.1 if cell == 2 else 1.0),
                        "g_low": g - 0.1,
                        "g_high": g + 0.1,
                        "objects": shell,
                        "expected_objects": shell * 1.1,
                        "g_objects": g * 0.9,
                        "g_objects_low": g * 0.6,
                        "g_objects_high": g * 1.3,
                    }
                )
            )
            edges = np.linspace(0, 1, 201)
            tables["profiles"].append(
                pd.DataFrame(
                    {
                        "cell": cell,
                        "organelle": name,
                        "t_low": edges[:-1],
                        "t_high": edges[1:],
                        "organelle_voxels": np.arange(200),
                        "cytoplasm_voxels": np.full(200, 100),
                    }
                )
            )
            tables["objects"].append(
                pd.DataFrame(
                    {
                        "organelle": name,
                        "label": np.arange(1, 41),
                        "cell": cell,
                        "compartment": ["cytoplasm"] * 30 + ["adsorbed"] * 8 + ["nucleus"] * 2,
                        "distance_ne_nm": rng.uniform(0, 2000, 40),
                        "distance_pm_nm": rng.uniform(0, 2000, 40),
                    }
                )
            )
            for compartment, objects in (("outside", 0), ("adsorbed", 8), ("cytoplasm", 30), ("nucleus", 2)):
                tables["uptake"].append(
                    {
                        "cell": cell,
                        "organelle": name,
                        "compartment": compartment,
                        "objects": objects,
                        "voxels": 60 * objects,
                        "volume_um3": 0.2 * objects,
                    }
                )
    codes = synthetic_codes(shape, size, n_shells)
    mask = rng.random(shape) < 0.01
    frames = {
        name: pd.concat(rows) if rows and isinstance(rows[0], pd.DataFrame) else pd.DataFrame(rows)
        for name, rows in tables.items()
    }
    fields = dict(
        name="beta-GIP",
        n_shells=n_shells,
        voxel_size_nm=size,
        shape=shape,
        condition="control",
        replicate="1",
        notes=("Cell 2 has two nuclei: shells are measured from their union.",),
        refused=[RefusedCell(9, "cell 9 has no nucleus; give it one or leave it out")],
        **frames,
        examples=[
            ExampleCell.of(cell, codes, size, organelles=dict.fromkeys(organelles, mask))
            for cell in range(1, cells + 1)
        ],
        tables_path="tables",
        provenance={"cytomill": {"version": "0.1.0"}},
        timings=synthetic_timings()[:2],
        campaign="beta cells, March",
        campaign_link="../../report.html",
    )
    return PartitionReport(**(fields | changes))


@pytest.fixture(scope="session")
def small_pictures():
    """Pictures of nested shells small enough for tests that look at many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nested_shells, "PIXELS", 160)
        yield


@pytest.fixture(scope="session")
def synthetic():
    """The makers above, by name."""
    return SimpleNamespace(
        dataset=synthetic_dataset,
        campaign=synthetic_campaign,
        preview=synthetic_preview,
        slice=synthetic_slice,
        particles=synthetic_particles,
        timings=synthetic_timings,
        partition=synthetic_partition,
        codes=synthetic_codes,
    )
