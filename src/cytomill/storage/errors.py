"""What goes wrong with files, as exceptions whose text a user can act on."""

from __future__ import annotations

from pathlib import Path


class VolumeError(ValueError):
    """A volume cannot be opened, read or written; the message is one sentence for the user."""

    def __str__(self) -> str:
        # Libraries' own messages, quoted in ours, often have several lines.
        return super().__str__().replace("\n", " ")


class LayoutDiffers(VolumeError):
    """An array of another shape, type, chunk or shard is where one was to be created."""


class DamagedShard(VolumeError):
    """A stored shard cannot be decoded or fails its checksum.

    Parameters
    ----------
    path : Path
        The shard file.
    reason : str
        What the decoder found.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Shard {self.path} is damaged ({self.reason}); have it made again (in a campaign: "
            "'cytomill verify --mend', then run)."
        )
