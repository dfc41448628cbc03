"""`cytomill nanoparticles`: the class API from the command line, for one stack in one process."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.downsample import downsampled_voxel_size_nm
from cytomill.nanoparticles.segmentation import NanoparticleSegmentation, label_nanoparticles
from cytomill.storage.stores import parse_spacing, spacing_name

MODELS = "models"


def segment_stack(options: argparse.Namespace) -> int:
    """Fit, predict, save the model beside the store, label."""
    given = {f.name: getattr(options, f.name) for f in fields(NanoparticleSegConfig)}
    config = NanoparticleSegConfig(**given)
    segmentation = NanoparticleSegmentation(config).fit()
    posterior = segmentation.predict()
    model = Path(config.root_path).parent / MODELS / str(config.model_name)
    segmentation.save(model)
    size = downsampled_voxel_size_nm(parse_spacing(config.spacing_dir), config.downsample)
    count = label_nanoparticles(
        config.root_path,
        spacing_name(size),
        config.posterior_th,
        radius=config.radius,
        connectivity=config.connectivity,
        min_size=config.min_particle_size,
        border=config.border,
        zarr_chunks=config.zarr_chunks,
        closing_nm=config.closing_nm,
        shard_shape=config.shard_shape,
    )
    for note in segmentation.notes:
        print(note)
    print(f"{count} clusters in {posterior.root}; model in {model}")
    return 0
