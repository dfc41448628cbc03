"""Nanoparticles in SBF-SEM stacks: intensity mixture, MAP posterior, labels, measurements."""

from typing import Any

__all__ = ["NanoparticleSegConfig", "NanoparticleSegmentation", "label_nanoparticles"]


def __getattr__(name: str) -> Any:
    # On demand: the command line reads the configuration without loading the compiled kernels.
    if name == "NanoparticleSegConfig":
        from cytomill.nanoparticles.config import NanoparticleSegConfig

        return NanoparticleSegConfig
    if name in __all__:
        from cytomill.nanoparticles import segmentation

        return getattr(segmentation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
