"""Campaigns of several small datasets, the calls that a run of them made, and what came out."""

import hashlib
import io
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from launching import run_ranks, wait_for
from promise_driver import FOLDER, LIMITS, LOG, RULES, Hooks, patch
from small_campaigns import phantom

from cytomill.runtime.journals import JOURNALS, read_lines
from cytomill.storage.stores import open_store

SHAPE = (24, 128, 128)
DRIVER = Path(__file__).with_name("promise_driver.py")
#: Stages that compute something in units, in order.
STAGES = ("histograms", "background", "posterior", "components", "masks")


class Promised:
    """A campaign that can be run in this process, alone or under mpirun, with its calls written down.

    Parameters
    ----------
    folder : Path
        Everything is put there.
    datasets : dict of str to path
        Inputs by name.
    run, options : str
        Lines of ``[run]`` and ``[nanoparticles]``.
    own : dict of str to str
        Lines of a dataset's own ``[dataset.nanoparticles]``.
    sized : bool
        Whether the voxel size is given.
    """

    def __init__(
        self,
        folder: Path,
        datasets: Mapping[str, Path],
        run: str = "slices_per_unit = 2\nblock = [4, 64, 128]",
        options: str = "",
        own: Mapping[str, str] = {},
        sized: bool = True,
    ) -> None:
        options = f"zarr_chunks = [1, 64, 64]\nshard_shape = [2, 64, 128]\n{options}"
        size = "voxel_size_nm = [50.0, 10.0, 10.0]\n" if sized else ""
        tables = ""
        for name, path in datasets.items():
            tables += f'[[dataset]]\nname = "{name}"\ninput = "{path}"\n{size}'
            if name in own:
                tables += f"[dataset.nanoparticles]\n{own[name]}\n"
        self.write(folder, f"[run]\n{run}\n[nanoparticles]\n{options}\n{tables}")

    def write(self, folder: Path, text: str) -> None:
        """Write the campaign file: what stands below ``[campaign]``."""
        self.folder = folder
        self.output = folder / "results"
        self.toml = folder / "campaign.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.toml.write_text(f'[campaign]\noutput = "{self.output}"\n{text}')

    def lower(self, limits: Mapping[str, int]) -> None:
        """Lower limits of the program, by their dotted names, so that small volumes meet them."""
        (self.folder / LIMITS).write_text(json.dumps(limits))

    def rules(self, *rules: Mapping[str, Any]) -> None:
        """What has to go wrong from now on; what earlier rules met is forgotten."""
        for path in self.folder.glob("met-*"):
            path.unlink()
        (self.folder / RULES).write_text(json.dumps(rules))

    def calls(self, what: str = "process", when: str = "before", **where: Any) -> list[dict[str, Any]]:
        """Calls that were made, of all launches since :meth:`forget`."""
        path = self.folder / LOG
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        wanted = {"what": what, **({"when": when} if what != "rule" else {}), **where}
        return [line for line in lines if all(line.get(k) == v for k, v in wanted.items())]

    def stages_called(self, **where: Any) -> Counter:
        """How many units of each stage were computed."""
        return Counter(call["stage"] for call in self.calls(**where))

    def forget(self) -> None:
        """Empty the call log."""
        (self.folder / LOG).unlink(missing_ok=True)

    def mpirun(self, n: int, *arguments: str, timeout: float = 120, meanwhile=None):
        """Run on `n` ranks (0: one process without a launcher); adds `ended_at`, by the clock."""
        done = run_ranks(
            n,
            [str(DRIVER), "run", str(self.toml), *arguments],
            {FOLDER: str(self.folder)},
            timeout,
            meanwhile,
        )
        done.ended_at = time.time()
        wait_for(lambda: not self.processes(), 20)
        return done

    def processes(self) -> list[int]:
        """Processes of earlier runs that still live; the ranks outlive a killed launcher for a moment."""
        pids = {call["pid"] for call in self.calls("ledger")} - {os.getpid()}
        return [pid for pid in pids if str(DRIVER).encode() in _command(pid)]

    def alone(self, monkeypatch, *arguments: str) -> int:
        """Run in this process; returns the exit code."""
        from cytomill.campaign import run
        from cytomill.cli import main
        from cytomill.runtime import signals

        with monkeypatch.context() as patches:
            patches.setenv(FOLDER, str(self.folder))
            patches.setattr(signals, "_reason", "")
            patches.setattr(run, "install_abort_hook", lambda world: None)
            patch(Hooks(self.folder), patches.setattr)
            return main(["run", str(self.toml), *arguments])

    def ledger_lines(self) -> list[dict[str, Any]]:
        """Whole lines of every journal, in order of launch."""
        paths = sorted((self.output / JOURNALS).glob("*.jsonl"))
        return [{**line, "file": path.name} for path in paths for line in read_lines(path, [])]

    def done(self) -> dict[tuple[str, str, int], list[float]]:
        """When each (dataset, stage, unit) was committed."""
        epochs, times = {}, {}
        lines = self.ledger_lines()
        for line in lines:
            if line["k"] == "stage":
                epochs[line["e"]] = (line["dataset"], line["stage"])
        for line in lines:
            if line["k"] == "done":
                times.setdefault((*epochs[line["e"]], line["u"]), []).append(line["t"])
        return times

    def copy(self, folder: Path) -> "Promised":
        """A campaign of its own on a copy of the inputs' folder and the results so far."""
        shutil.copytree(self.folder, folder)
        text = self.toml.read_text().replace(str(self.folder), str(folder))
        other = object.__new__(type(self))
        other.folder, other.output, other.toml = folder, folder / "results", folder / "campaign.toml"
        other.toml.write_text(text)
        return other


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def save(folder: Path, name: str, volume: np.ndarray) -> Path:
    """Write a volume as NPY (or NPZ, by its name)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    np.savez(path, volume) if path.suffix == ".npz" else np.save(path, volume)
    return path


def one_dataset(folder: Path, shape: Sequence[int] = SHAPE, **settings: Any) -> Promised:
    """A campaign of one phantom."""
    return several(folder, ("alpha",), shape, **settings)


def several(folder: Path, names: Sequence[str], shape: Sequence[int] = SHAPE, **settings: Any) -> Promised:
    """A campaign of one phantom a name."""
    paths = {
        name: save(folder / "inputs", f"{name}.npy", phantom(tuple(shape), seed=seed))
        for seed, name in enumerate(names, 3)
    }
    return Promised(folder, paths, **settings)


def results(output: Path) -> dict[str, Any]:
    """Decoded values, shapes and dtypes of every volume, rows of every table, arrays of every model."""
    found: dict[str, Any] = {}
    for folder in [output, *sorted((output / "datasets").iterdir())]:
        store = open_store(folder / "store.zarr")
        for node in sorted((folder / "store.zarr").rglob("zarr.json")):
            if json.loads(node.read_text())["node_type"] == "array":
                name = node.parent.relative_to(folder / "store.zarr").as_posix()
                array = store.open(name)
                values = array.read()
                sha = hashlib.sha256(values.tobytes()).hexdigest()
                facts = (array.shape, str(values.dtype), int((values > 0).sum()), sha)
                found[f"{folder.name}/{name}"] = facts
        for table in sorted((folder / "tables").glob("*.parquet")):
            frame = pd.read_parquet(table)
            kinds = {column: str(kind) for column, kind in frame.dtypes.items()}
            found[f"{folder.name}/{table.name}"] = (kinds, frame.to_csv(index=False, float_format="%r"))
        for table in sorted((folder / "tables").glob("*.csv")):
            found[f"{folder.name}/{table.name}"] = table.read_text()
        for text in sorted((folder / "xvg").glob("*.xvg")):
            found[f"{folder.name}/{text.name}"] = hashlib.sha256(text.read_bytes()).hexdigest()
        model = folder / "model" / "model_params.npz"
        if model.exists():
            with np.load(io.BytesIO(model.read_bytes()), allow_pickle=False) as arrays:
                found[f"{folder.name}/model"] = {
                    name: (arrays[name].shape, str(arrays[name].dtype), arrays[name].tobytes())
                    for name in arrays.files
                }
    return found


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Names of the results that differ."""
    return [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]


def touch(path: Path) -> None:
    """Change a file's time of modification alone."""
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 5 * 10**9))


def flip(path: Path, position: int | None = None) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)
