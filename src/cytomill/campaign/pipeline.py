"""What a campaign asks of a pipeline: how a dataset of it is opened, cut into stages, planned and shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cytomill.campaign.datasets import Dataset
from cytomill.campaign.settings import RunSettings
from cytomill.kernels.devices import Device
from cytomill.runtime.needs import StageNeeds
from cytomill.runtime.stage import Stage
from cytomill.storage.volumes import Volume

#: Folder of the datasets' outputs in a campaign's output folder.
DATASETS = "datasets"
#: Page of a campaign in its output folder, and of a dataset in its own.
REPORT = "report.html"


@dataclass(frozen=True)
class Place:
    """Where a dataset is opened.

    Parameters
    ----------
    device : Device
        Where this rank's kernels run.
    ranks : int
        Ranks that will share the work; with many, units are cut smaller.
    """

    device: Device = Device()
    ranks: int = 1


@dataclass(frozen=True)
class PageFacts:
    """What the page of a dataset says beside the dataset's own results.

    Parameters
    ----------
    set_aside : list of SetAside
        Its units that were given up.
    timings : list of StageTiming
        Its stages.
    provenance : dict
        Of the launches, JSON-able.
    campaign : str
        Name of the campaign.
    campaign_link : str
        The campaign's page, as the dataset's links to it.
    link : str
        The dataset's page, as the campaign's links to it.
    refusal : str
        Why the dataset was set aside; empty where it was not.
    """

    set_aside: list = field(default_factory=list)
    timings: list = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    campaign: str = ""
    campaign_link: str = ""
    link: str = ""
    refusal: str = ""


class Pipeline(ABC):
    """One kind of analysis.

    Attributes
    ----------
    config : type
        Dataclass of its options.
    previews : bool
        Whether `preview` shows slices.
    """

    config: type
    previews: bool = False

    @abstractmethod
    def order(self) -> Sequence[str]:
        """Names of its stages in order; datasets may lack some."""

    @abstractmethod
    def open_dataset(
        self, dataset: Dataset, output: Path, run: RunSettings, place: Place, others: Mapping[str, Any]
    ) -> Any:
        """Open a dataset by its headers; returns its state.

        Parameters
        ----------
        dataset : Dataset
            As the campaign file has it.
        output : Path
            Folder of the campaign's results.
        run : RunSettings
            How work is done.
        place : Place
            Device and ranks.
        others : mapping of str to state
            Datasets of the campaign opened before, for inputs that are another dataset's results.

        Raises
        ------
        ValueError
            The input cannot be used; one sentence.
        """

    @abstractmethod
    def stages(self, state: Any) -> Sequence[Stage]:
        """Stages of an opened dataset, in order."""

    @abstractmethod
    def expect(self, state: Any, stages: Sequence[Stage]) -> list[StageNeeds]:
        """What each stage will need; no voxel is read, and the state is used up."""

    @abstractmethod
    def inputs(self, state: Any) -> Mapping[str, Volume]:
        """Inputs by what their stages add to `input` (a field) and `crc32c` (a result); one adds nothing."""

    @abstractmethod
    def write_page(self, state: Any, facts: PageFacts) -> tuple[Any, str]:
        """Write a dataset's page and what lies beside it.

        Returns
        -------
        row : DatasetRow
            Its line on the campaign's page.
        incomplete : str
            A sentence where a result could not be read; empty otherwise.
        """

    @abstractmethod
    def stored_row(self, values: dict[str, Any]) -> Any:
        """A dataset's line from its fields as the ledger keeps them."""

    @abstractmethod
    def row_without_page(self, dataset: str, reason: str) -> Any:
        """The line on the campaign's page of a dataset that could not be opened."""

    @abstractmethod
    def compile_kernels(self, options: Sequence[Any]) -> None:
        """Compile, or load from the cache, every kernel that datasets with these options use."""

    def depends_on(self, options: Any) -> Sequence[str]:
        """Names of datasets whose results a dataset with these options reads."""
        return ()

    def preview(self, state: Any, slices: int) -> Any:
        """A sheet of the campaign's preview; a pipeline that has none says so on it."""
        from cytomill.reports.preview import PreviewDataset

        return PreviewDataset(state.dataset, notes=("this pipeline has no preview; its results have a page",))

    def campaign_sections(self, states: Sequence[Any], output: Path) -> Sequence[Any]:
        """Sections of the campaign's page that compare its datasets; tables are written to `output`."""
        return ()


def dataset_folder(output: Path, dataset: str) -> Path:
    """Where a dataset's store, tables and report are."""
    return output / DATASETS / dataset


def voxel_size_of(dataset: Dataset, source: Volume) -> tuple[tuple[float, float, float], tuple[str, ...]]:
    """Voxel size of a dataset, nm (Z, Y, X), and notes where its file says another.

    Raises
    ------
    ValueError
        Neither the campaign nor the file states it.
    """
    size = dataset.voxel_size_nm or source.voxel_size_nm
    if size is None:
        raise ValueError(
            f"{dataset.input} does not state its voxel size; give voxel_size_nm = [z, y, x] for dataset "
            f"'{dataset.name}'"
        )
    size = tuple(float(s) for s in size)
    if source.voxel_size_nm is not None and size != tuple(source.voxel_size_nm):
        note = (
            f"dataset {dataset.name}: voxel size {_sizes(size)} nm as configured; its file says "
            f"{_sizes(source.voxel_size_nm)} nm"
        )
        return size, (note,)
    return size, ()


def _sizes(size: Sequence[float]) -> str:
    return " × ".join(f"{s:g}" for s in size)
