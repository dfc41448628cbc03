"""The nanoparticle pipeline: its stages, in order, for one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote

from cytomill.nanoparticles.intensity_stages import (
    BackgroundStage,
    ConvertStage,
    GreyLevelStage,
    HistogramStage,
    MixtureStage,
)
from cytomill.nanoparticles.label_stages import ComponentStage, MaskStage
from cytomill.nanoparticles.posterior_stages import DownsampleStage, PosteriorStage
from cytomill.nanoparticles.state import DatasetState
from cytomill.runtime.stage import Stage

#: Pixel types that the pipeline accepts.
DTYPES = ("uint8", "uint16")


def check_input(state: DatasetState) -> None:
    """Open the dataset's input and refuse what the pipeline cannot use (headers only).

    Raises
    ------
    ValueError
        One sentence: what was found, what is expected, what to do.
    """
    source = state.source
    if source.dtype.name not in DTYPES:
        raise ValueError(
            f"{source.path}: pixels are {source.dtype.name}, expected uint8 or uint16; "
            f"scale them with: cytomill convert --dtype uint16 {quote(str(source.path))} FOLDER.zarr"
        )
    if min(source.shape) < 1:
        raise ValueError(f"{source.path}: the stack of shape {source.shape} has no pixels")
    factors = state.config.downsample
    if any(f > n for f, n in zip(factors, source.shape)):
        raise ValueError(
            f"{source.path}: downsample = {list(factors)} is larger than the stack {source.shape}"
        )


def build_stages(state: DatasetState) -> Sequence[Stage]:
    """The stages of one dataset; which there are depends on its input's header and its configuration."""
    stages: list[Stage] = []
    if not state.source.region_readable:
        stages.append(ConvertStage(state))
    if state.source.dtype.name != "uint8":
        stages.append(GreyLevelStage(state))
    stages += [HistogramStage(state), BackgroundStage(state), MixtureStage(state), PosteriorStage(state)]
    if state.downsamples:
        stages.append(DownsampleStage(state))
    return [*stages, ComponentStage(state), MaskStage(state)]


#: Stages in the order of the pipeline; datasets that lack one wait for nobody.
ORDER = (
    ConvertStage.name,
    GreyLevelStage.name,
    HistogramStage.name,
    BackgroundStage.name,
    MixtureStage.name,
    PosteriorStage.name,
    DownsampleStage.name,
    ComponentStage.name,
    MaskStage.name,
)
