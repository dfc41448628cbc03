"""Small campaigns for tests: a phantom, its campaign file, and the waves of its stages on one rank."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cytomill.campaign.config import Campaign, load_campaign
from cytomill.campaign.launches import new_launch_id
from cytomill.campaign.opening import TELEMETRY, keep_timed_names, open_datasets, write_resolved
from cytomill.phantoms.nanoparticles import make_volume
from cytomill.runtime.engine import Engine
from cytomill.runtime.journals import next_launch
from cytomill.runtime.ledger import Journal, replay
from cytomill.runtime.planning import Policy
from cytomill.runtime.ranks import SoloWorld
from cytomill.runtime.telemetry import Telemetry

SHAPE = (8, 160, 192)


def phantom(shape: tuple[int, int, int] = SHAPE, seed: int = 3, **recipe) -> np.ndarray:
    """Voxels of a small nanoparticle phantom."""
    return make_volume(shape, seed=seed, load=0.03, **recipe)[0]


def write_campaign(
    folder: Path, datasets: Sequence[Path | str], options: str = "", run: str = "", shard_depth: int = 2
) -> Campaign:
    """Write and read a campaign file for inputs that state no voxel size."""
    tables = [f'[[dataset]]\ninput = "{path}"\nvoxel_size_nm = [50.0, 10.0, 10.0]\n' for path in datasets]
    text = (
        f'[campaign]\noutput = "{folder / "results"}"\n[run]\nslices_per_unit = 2\n{run}\n'
        f"[nanoparticles]\nzarr_chunks = [1, 64, 64]\nshard_shape = [{shard_depth}, 64, 192]\n{options}\n"
        + "".join(tables)
    )
    path = folder / "campaign.toml"
    path.write_text(text)
    return load_campaign(path)


def small_campaign(folder: Path, names: Sequence[str] = ("alpha",), **settings) -> Campaign:
    """A campaign of phantoms saved as NPY files; their first slices hold no particles."""
    paths = []
    for seed, name in enumerate(names, 3):
        paths.append(folder / f"{name}.npy")
        np.save(paths[-1], phantom(seed=seed, without_particles=(0, 1, 2, 3)))
    return write_campaign(folder, paths, **settings)


class CountedEngine(Engine):
    """Remembers which units it computed and which stages it reduced."""

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self.computed: list[tuple[str, str, int]] = []
        self.reduced: list[tuple[str, str]] = []

    def _attempt(self, stage, plan, u, child, waited):
        self.computed.append((stage.dataset, stage.name, u))
        return super()._attempt(stage, plan, u, child, waited)

    def _reduce_stage(self, stage, plan, finished):
        self.reduced.append((stage.dataset, stage.name))
        return super()._reduce_stage(stage, plan, finished)


def run_waves(campaign: Campaign, until: str | None = None, attempts: int = 3) -> CountedEngine:
    """Run a campaign's stages in this process, up to and without the stage `until`."""
    root = campaign.output
    root.mkdir(parents=True, exist_ok=True)
    campaign = keep_timed_names(campaign)
    write_resolved(campaign)
    launch = next_launch(root, new_launch_id())
    opened = open_datasets(campaign)
    journal = Journal(root, launch, 0)
    journal.launch_line(version="test", provenance={})
    telemetry = Telemetry(root / TELEMETRY, launch, 0)

    def child_command(dataset: str, stage: str, unit: int) -> list[str]:
        return [sys.executable, "-m", "cytomill", "unit", str(root), dataset, stage, str(unit)]

    engine = CountedEngine(
        SoloWorld(), root, replay(root), journal, telemetry, Policy(attempts), "static", child_command
    )
    engine.set_aside.update(opened.set_aside)
    try:
        for wave in opened.waves():
            if until is not None and wave[0].name == until:
                break
            engine.run_wave(wave)
    finally:
        telemetry.close()
        journal.close()
        engine.close()
    return engine
