"""Radial partitioning of the cytoplasm, from the nuclear envelope to the plasma membrane."""

from importlib import import_module
from typing import Any

#: Names of the package, and the module that each is in.
_HOMES = {
    "PartitionCoordinates": "coordinates",
    "Partitioning": "api",
    "PartitioningConfig": "config",
    "QuickLogger": "quick_logger",
    "UniversalDataLoader": "loader",
    "calculate_rdf_from_xvg": "xvg_rdf",
    "compute_partition_features": "features",
    "load_partition_coords_from_xvg": "xvg_reading",
    "log_analysis": "quick_logger",
    "plot_partition_features": "plots",
    "plot_radial_rdf": "plots",
    "save_radial_rdf_results": "xvg_rdf",
    "visualize_partitions": "plots",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # On demand: the command line reads the configuration without loading kernels or matplotlib.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
