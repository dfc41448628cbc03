"""A fitted model on disk: two JSON files and one NPZ, without pickle."""

from __future__ import annotations

import json
import zipfile
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import cytomill
from cytomill.kernels.binning import Binning
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.model import Mixture
from cytomill.runtime.arrays import npz_bytes
from cytomill.storage.durable import make_directories, write_atomic

MANIFEST = "training_manifest.json"
PARAMETERS = "model_params.npz"
RESULTS = "fit_results.json"

#: Changes when the files' content does.
FORMAT = 1


@dataclass(frozen=True)
class FittedModel:
    """All that a prediction needs.

    Parameters
    ----------
    mixture : Mixture
    binning : Binning
    dtype : str
        Type of the pixels that it was fitted on, ``uint8`` or ``uint16``.
    """

    mixture: Mixture
    binning: Binning
    dtype: str


def save_model(directory: Path, model: FittedModel, config: NanoparticleSegConfig) -> None:
    """Write a fitted model.

    Parameters
    ----------
    directory : Path
        Made where it does not exist.
    model : FittedModel
    config : NanoparticleSegConfig
        What it was fitted with.
    """
    arrays: dict[str, np.ndarray] = {}
    rest: dict[str, Any] = {}
    results = model.mixture.summary_fit
    for field in fields(Mixture):
        value = getattr(model.mixture, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif field.name not in results and value is not None:
            rest[field.name] = value
    manifest = {
        "format": FORMAT,
        "cytomill": cytomill.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": asdict(config),
        "dtype": model.dtype,
        "binning": asdict(model.binning),
        "mixture": rest,
    }
    make_directories(directory)
    write_atomic(directory / PARAMETERS, npz_bytes(arrays))
    write_atomic(directory / RESULTS, _json(results))
    # Last: a manifest stands for the other two.
    write_atomic(directory / MANIFEST, _json(manifest))


def _json(content: dict[str, Any]) -> bytes:
    # Estimators may leave NumPy scalars in their results.
    return (json.dumps(content, indent=2, default=lambda value: value.item()) + "\n").encode()


def load_model(directory: Path, estimator: str) -> FittedModel:
    """Read a model that :func:`save_model` wrote.

    Parameters
    ----------
    directory : Path
    estimator : str
        The estimator that will use it.

    Returns
    -------
    FittedModel

    Raises
    ------
    ValueError
        If a file is missing or damaged, or the model is of another format or estimator.
    """
    manifest = _read_json(directory / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{directory / MANIFEST} has format {manifest.get('format')!r}, this version reads {FORMAT}: "
            "fit the model again"
        )
    fitted_with = manifest.get("config", {}).get("estimator")
    if fitted_with != estimator:
        raise ValueError(
            f"the model in {directory} is of the estimator {fitted_with!r}, the configuration names "
            f"{estimator!r}: make them the same"
        )
    values = {**manifest.get("mixture", {}), **_read_json(directory / RESULTS), **_read_arrays(directory)}
    names = {field.name for field in fields(Mixture)}
    needed = {field.name for field in fields(Mixture) if field.default is MISSING}
    if not needed <= set(values) <= names:
        odd = ", ".join(sorted(needed - set(values)) + sorted(set(values) - names))
        raise ValueError(f"the model in {directory} is incomplete or of another version ({odd}); fit again")
    values["notes"] = tuple(values.get("notes", ()))
    try:
        binning = Binning(**manifest["binning"])
        dtype = str(manifest["dtype"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{directory / MANIFEST} states no binning and pixel type ({error}); fit again"
        ) from error
    return FittedModel(Mixture(**values), binning, dtype)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: {path.parent} holds no complete model") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): fit the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: fit the model again")
    return content


def _read_arrays(directory: Path) -> dict[str, np.ndarray]:
    path = directory / PARAMETERS
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: {directory} holds no complete model") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read ({error}): fit the model again") from error
