"""The class API: segment the nanoparticles of one stack in one process.

A Zarr v3 store holds the stack as ``images/{z-y-x}``, the spacing in nm; the posterior is written
beside it as ``labels/nps/posterior/{z-y-x}`` and the labels as ``labels/nps/masks/{z-y-x}``.  Volumes
are read and written slab by slab.  A campaign runs the same functions under MPI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.binning import Binning, choose_binning
from cytomill.kernels.blocks import grid, grow, region_shape
from cytomill.kernels.closing import ball
from cytomill.kernels.labelling import label_unit, merge_blocks, paint_unit
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.downsample import (
    downsample_slab,
    downsampled_shape,
    downsampled_voxel_size_nm,
    source_slices,
)
from cytomill.nanoparticles.estimators import make_estimator
from cytomill.nanoparticles.fitting import analyse_histograms, apply_mixture, fit_stack
from cytomill.nanoparticles.layout import open_array, output_layout, slab_depth
from cytomill.nanoparticles.mixture import sampled_slices
from cytomill.nanoparticles.model import Mixture, SlicePosterior
from cytomill.nanoparticles.model_files import FittedModel, load_model, save_model
from cytomill.nanoparticles.padding import padding_of
from cytomill.nanoparticles.slabs import slab_backgrounds, slab_histograms, slab_posterior, slab_ranges
from cytomill.storage.stores import (
    StoredArray,
    open_store,
    parse_spacing,
    spacing_name,
)
from cytomill.storage.volumes import Volume


class NanoparticleSegmentation:
    """Segment the nanoparticles of a stack by their intensity.

    Parameters
    ----------
    config : NanoparticleSegConfig
        ``root_path`` is a Zarr v3 store, ``spacing_dir`` names the array below ``images/``.

    Attributes
    ----------
    mixture : Mixture or None
        The fitted model; None before :meth:`fit` or :meth:`load`.
    slices : SlicePosterior or None
        Mixing weights and tables of the slices of the stack.
    binning : Binning
        How pixels became bins.
    dtype : str
        Type of the pixels that the model was fitted on.
    notes : tuple of str
        What was decided on the way, as sentences.
    """

    def __init__(self, config: NanoparticleSegConfig) -> None:
        self.config = config
        self.estimator = make_estimator(config)
        self.binning = Binning()
        self.dtype = ""
        self.mixture: Mixture | None = None
        self.slices: SlicePosterior | None = None

    def _fitted(self) -> Mixture:
        if self.mixture is None:
            raise RuntimeError("the model is not fitted: call fit() or load(directory) first")
        return self.mixture

    @property
    def hist_stack(self) -> np.ndarray:
        """Counts of the sampled slices, (256,) int64."""
        return self._fitted().hist_stack

    @property
    def hist_bg(self) -> np.ndarray:
        """Counts of their background, (256,) int64."""
        return self._fitted().hist_bg

    @property
    def p_stack(self) -> np.ndarray:
        """Distribution of the stack over bins, (256,) float64."""
        return self._fitted().p_stack

    @property
    def p_bg(self) -> np.ndarray:
        """Distribution of the background, (256,) float64."""
        return self._fitted().p_bg

    @property
    def p_np(self) -> np.ndarray:
        """Distribution of the nanoparticles, (256,) float64."""
        return self._fitted().p_np

    @property
    def th_low(self) -> int:
        """A candidate particle pixel lies above this bin."""
        return self._fitted().th_low

    @property
    def th_high(self) -> int:
        """Background lies below this bin."""
        return self._fitted().th_high

    @property
    def summary_fit(self) -> dict[str, float | int | bool]:
        """``w_bg``, ``nll``, ``nit`` and ``converged`` of the fit."""
        return self._fitted().summary_fit

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided on the way, as sentences."""
        return self._fitted().notes

    def _say(self, text: str) -> None:
        if self.config.verbose:
            print(text, flush=True)

    def _images(self) -> Volume:
        volume = open_array(self.config.root_path, f"images/{self.config.spacing_dir}")
        if volume.dtype not in (np.uint8, np.uint16):
            dtype = volume.dtype
            volume.close()
            raise TypeError(
                f"images/{self.config.spacing_dir} of {self.config.root_path} holds {dtype}, but intensities "
                "must be uint8 or uint16: convert the volume to one of them first"
            )
        return volume

    def _rows(self, volume: Volume, compute: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """Rows of all slices, slab by slab."""
        return np.concatenate([compute(first, slab) for first, slab in volume.slabs(slab_depth(volume))])

    def fit(self) -> NanoparticleSegmentation:
        """Fit the mixture to the stack.

        Returns
        -------
        NanoparticleSegmentation
            Itself.

        Raises
        ------
        RuntimeError
            If EM collapses.
        TypeError
            If the stack is neither uint8 nor uint16.
        ValueError
            If there is no such stack, or nothing in it to fit.
        """
        config = self.config
        with self._images() as volume:
            binning = Binning()
            if volume.dtype != np.uint8:
                binning = choose_binning(self._rows(volume, lambda _, slab: slab_ranges(slab)))
            counted = self._count(volume, binning)
            sampled = sampled_slices(volume.shape[0], config.sampling_step)
            stack = analyse_histograms(config, self.estimator, *counted, sampled)
            self._say(f"th_low = {stack.thresholds.th_low}, th_high = {stack.thresholds.th_high}")
            found = (stack.binning, stack.hist_slices, stack.thresholds)
            options = (config.halo_pad, config.min_size, stack.padding)
            hist_bg_slices = self._rows(volume, lambda z, slab: slab_backgrounds(slab, z, *found, *options))
            self.dtype = volume.dtype.name
        fitted = fit_stack(self.estimator, stack, hist_bg_slices, sampled)
        self.binning, self.mixture, self.slices = stack.binning, fitted.mixture, fitted.slices
        for note in self.mixture.notes:
            self._say(note)
        self._say(f"{self.mixture.verdict}: {self.mixture.summary_fit}")
        return self

    def _count(self, volume: Volume, binning: Binning) -> tuple[Binning, np.ndarray, np.ndarray]:
        """The binning, the slices' histograms and their padding, in one pass."""
        histograms, padding = [], []
        for _, slab in volume.slabs(slab_depth(volume)):
            rows = slab_histograms(slab, binning)
            histograms.append(rows)
            padding.append(padding_of(self.config, slab, binning, rows))
        return binning, np.concatenate(histograms), np.concatenate(padding)

    def predict(self) -> StoredArray:
        """Write the posterior of every voxel beside the images.

        A model that was loaded takes the mixing weights, the slices set aside and their drift in
        brightness from the stack's own histograms.  Where the configuration asks for it, the downsampled
        posterior is written too.

        Returns
        -------
        StoredArray
            ``labels/nps/posterior/{z-y-x}``.

        Raises
        ------
        RuntimeError
            If the model is neither fitted nor loaded.
        TypeError, ValueError
            If there is no such stack, or its pixels are not of the type that the model was fitted on.
        """
        mixture = self._fitted()
        config = self.config
        with self._images() as volume:
            if volume.dtype.name != self.dtype:
                raise ValueError(
                    f"the model was fitted on {self.dtype} and the stack in {config.root_path} is "
                    f"{volume.dtype}: fit it on this stack, or convert the stack"
                )
            if self.slices is None:
                _, *counted = self._count(volume, self.binning)
                fitted = apply_mixture(config, self.estimator, mixture, *counted)
                self.mixture, self.slices = fitted.mixture, fitted.slices
            tables = self.slices.tables
            posterior = self._create(config.spacing_dir, volume.shape, [f"images/{config.spacing_dir}"])
            for first in range(0, volume.shape[0], posterior.shards[0]):
                region = ((first, min(first + posterior.shards[0], volume.shape[0])),)
                rows = tables[slice(*region[0])]
                posterior.write(region, slab_posterior(volume.read(region), self.binning, rows))
        self._say(f"wrote {posterior.name}")
        if any(factor > 1 for factor in config.downsample):
            self._downsample(posterior)
        return posterior

    def _create(self, spacing: str, shape: tuple[int, ...], inputs: list[str], **step: Any) -> StoredArray:
        config = self.config
        chunks, shards = output_layout(config, shape, config.posterior_dtype)
        done = {name: value for name, value in asdict(config).items() if name not in ("root_path", "verbose")}
        attributes: dict[str, Any] = {
            "processing": [{"step_name": "segmentation", "parameters": done}, *([step] if step else [])],
            "inputs": inputs,
        }
        if config.posterior_dtype == "uint8":
            attributes["posterior_scale"] = 1 / 255
        return open_store(config.root_path).create(
            f"labels/nps/posterior/{spacing}",
            shape,
            config.posterior_dtype,
            chunks,
            shards,
            attributes=attributes,
            overwrite=True,
        )

    def _downsample(self, posterior: StoredArray) -> None:
        factors, sigma = self.config.downsample, self.config.downsample_sigma
        shape = downsampled_shape(posterior.shape, factors)
        voxel_size_nm = downsampled_voxel_size_nm(parse_spacing(self.config.spacing_dir), factors)
        smaller = self._create(
            spacing_name(voxel_size_nm),
            shape,
            [posterior.name],
            step_name="downsampling",
            factors=list(factors),
            sigma=list(sigma),
        )
        for start in range(0, shape[0], smaller.shards[0]):
            stop = min(start + smaller.shards[0], shape[0])
            first, last = source_slices(start, stop, posterior.shape[0], factors[0], sigma[0])
            slab = posterior.read(((first, last),))
            smaller.write(((start, stop),), downsample_slab(slab, first, start, stop, factors, sigma))
        self._say(f"wrote {smaller.name}")

    def save(self, directory: str | Path) -> None:
        """Write the model: ``training_manifest.json``, ``model_params.npz``, ``fit_results.json``.

        Parameters
        ----------
        directory : path-like
            Made where it does not exist.

        Raises
        ------
        RuntimeError
            If the model is neither fitted nor loaded.
        """
        save_model(Path(directory), FittedModel(self._fitted(), self.binning, self.dtype), self.config)

    def load(self, directory: str | Path) -> NanoparticleSegmentation:
        """Read a model that :meth:`save` wrote, thresholds and summary included.

        Parameters
        ----------
        directory : path-like

        Returns
        -------
        NanoparticleSegmentation
            Itself, ready for :meth:`predict`.

        Raises
        ------
        ValueError
            If a file is missing or damaged, or the model is of another estimator.
        """
        model = load_model(Path(directory), self.config.estimator)
        self.mixture, self.binning, self.dtype = model.mixture, model.binning, model.dtype
        self.slices = None
        return self


def label_nanoparticles(
    root_path: str,
    spacing: str,
    threshold: float,
    radius: int = 1,
    connectivity: int = 2,
    min_size: int = 10,
    border: str = "pad",
    zarr_chunks: tuple[int, int, int] = (1, 1024, 1024),
    closing_nm: float | None = None,
    shard_shape: tuple[int, int, int] | None = None,
) -> int:
    """Label the clusters of nanoparticles of a posterior volume.

    Between finding what touches and writing, a block is held as its runs along X, so that memory is
    that of one block, the runs and the table of components.

    Parameters
    ----------
    root_path : str
        Zarr v3 store that holds ``labels/nps/posterior/{spacing}``.
    spacing : str
        Spacing (Z-Y-X) in nm, for example ``50-10-10``.
    threshold : float
        Posterior of a particle voxel, in (0, 1].
    radius : int
        Radius of the closing ball, voxels.
    connectivity : {1, 2, 3}
        Voxels that share a face; or an edge; or a corner.
    min_size : int
        Smallest label, voxels.
    border : {"pad", "zero"}
        The closing at the volume's faces: padded, or with zeros outside.
    zarr_chunks : tuple of int
        Chunk of the volume written.
    closing_nm : float, optional
        Radius of the closing ball in nm, in the place of `radius`.
    shard_shape : tuple of int, optional
        Shard of the volume written (default: from the chunk).

    Returns
    -------
    int
        How many labels were written to ``labels/nps/masks/{spacing}``, numbered by first voxel.

    Raises
    ------
    ValueError
        If there is no such posterior, or a parameter makes no sense.
    """
    name = f"labels/nps/posterior/{spacing}"
    step = {
        "step_name": "labelling",
        "threshold": threshold,
        "radius": radius,
        "closing_nm": closing_nm,
        "connectivity": connectivity,
        "min_size": min_size,
        "border": border,
    }
    written = NanoparticleSegConfig(root_path, spacing, zarr_chunks=zarr_chunks, shard_shape=shard_shape)
    element = ball(radius) if closing_nm is None else ball(closing_nm, parse_spacing(spacing))
    with open_array(root_path, name) as posterior:
        shape = posterior.shape
        chunks, shards = output_layout(written, shape, np.int32)
        blocks = grid(shape, shards)

        pieces, partials = [], []
        for region in blocks:
            around, _ = grow(region, element.halo, shape)
            runs, partial = label_unit(
                posterior.read(around), region, shape, threshold, element, connectivity, border
            )
            pieces.append(runs)
            partials.append(partial)
        joined = {key: np.concatenate([partial[key] for partial in partials]) for key in partials[0]}
        label_map = merge_blocks(joined, connectivity, min_size)
        masks = open_store(root_path).create(
            f"labels/nps/masks/{spacing}",
            shape,
            np.int32,
            chunks,
            shards,
            attributes={"processing": [step], "inputs": [name]},
            overwrite=True,
        )
        for index, region in enumerate(blocks):
            masks.write(region, paint_unit(pieces[index], region_shape(region), label_map.of_block(index)))
    return label_map.count
