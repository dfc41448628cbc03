"""Keys of the sections of a campaign file that belong to no pipeline and to no run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CampaignKeys:
    """Keys of ``[campaign]``.

    Raises
    ------
    ValueError
        The output is empty.
    """

    name: str | None = field(default=None, metadata={"help": "the campaign's name (default: the file's)"})
    output: str | None = field(
        default=None, metadata={"help": "folder of the results (default: <name>-results)"}
    )

    def __post_init__(self) -> None:
        if self.output is not None and not self.output.strip():
            raise ValueError("output is empty, expected the path of a folder")


@dataclass(frozen=True)
class DatasetKeys:
    """Keys of ``[[dataset]]``, beside one table of overrides named as its pipeline.

    Raises
    ------
    ValueError
        The input is empty, or a voxel size is not above 0.
    """

    input: str = field(metadata={"help": "image stack, or a pattern"})
    name: str = field(metadata={"help": "the dataset's name (default: its file's)"})
    pipeline: str | None = field(default=None, metadata={"help": "what is done with it"})
    voxel_size_nm: tuple[float, float, float] | None = field(
        default=None, metadata={"help": "Z Y X in nm, in the place of the file's"}
    )

    def __post_init__(self) -> None:
        if not self.input:
            raise ValueError("input is empty, expected the path of an image stack")
        if self.voxel_size_nm is not None and min(self.voxel_size_nm) <= 0:
            raise ValueError(f"voxel_size_nm is {list(self.voxel_size_nm)}, expected three lengths above 0")
