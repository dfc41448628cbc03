"""Configuration of the partitioning pipeline: one dataclass for campaigns and Python."""

# No postponed annotations here: argparse-dataclass reads the types at run time.
import math
from dataclasses import dataclass, fields
from dataclasses import field as option

from cytomill.kernels.cell_codes import MOST_SHELLS

METHODS = ("normalized", "pairs", "pairs_edt")
FIELDS = ("edt", "laplace", "ray")
CELLS = ("auto", "one", "many")
OBJECTS = ("auto", "labels", "components")


@dataclass
class PartitioningConfig:
    """Parameters of radial partitioning.

    The input of the dataset is the cell (PM) mask or label volume. Lengths are in nm.

    Raises
    ------
    ValueError
        If a value makes no sense; one sentence that names the field.
    """

    nucleus: str = option(
        default="", metadata={"path": True, "help": "nucleus (NE) mask; empty: labels of the input"}
    )
    pm_labels: tuple[int, ...] = option(
        default=(), metadata={"help": "labels of the input that make up the cell; empty: all"}
    )
    ne_labels: tuple[int, ...] = option(
        default=(), metadata={"help": "labels that make up the nucleus; empty: all"}
    )
    cells: str = option(
        default="auto",
        metadata={"choices": CELLS, "help": "one cell a volume, or many: cell label i with nucleus label i"},
    )
    method: str = option(default="normalized", metadata={"choices": METHODS, "help": "see the docs"})
    field: str = option(
        default="edt", metadata={"choices": FIELDS, "help": "radial position of method normalized"}
    )
    n_shells: int = option(default=8, metadata={"help": "shells from NE to PM"})
    compat: bool = option(
        default=False,
        metadata={"help": "method pairs as the published program computes it, defects included"},
    )
    organelles: tuple[str, ...] = option(
        default=(),
        metadata={"path": True, "help": "name=path of masks or labels; name=@dataset: its particles"},
    )
    objects: str = option(
        default="auto",
        metadata={"choices": OBJECTS, "help": "organelle objects: its labels, or connected components"},
    )
    min_object_size: int = option(default=1, metadata={"help": "smallest component, voxels"})
    adsorbed_nm: float = option(
        default=100.0, metadata={"help": "outside objects this near to the PM count as adsorbed"}
    )
    condition: str = option(default="", metadata={"help": "condition that the cells belong to"})
    replicate: str = option(default="", metadata={"help": "biological replicate that the cells belong to"})
    bootstrap: int = option(default=1000, metadata={"help": "resamplings for intervals"})
    seed: int = option(default=0, metadata={"help": "everything random follows from it"})
    xvg: bool = option(default=False, metadata={"help": "write the coordinates of every shell (XVG)"})
    largest_crop: int = option(
        default=48_000_000,
        metadata={"help": "voxels around a cell that a rank takes at once; larger ones by slabs (edt)"},
    )
    zarr_chunks: tuple[int, int, int] = option(
        default=(1, 1024, 1024), metadata={"help": "chunk of the volumes written"}
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            choices = f.metadata.get("choices")
            if choices and getattr(self, f.name) not in choices:
                raise ValueError(
                    f"{f.name} must be one of {', '.join(choices)}; found {getattr(self, f.name)!r}"
                )
        least = {"n_shells": 1, "min_object_size": 1, "adsorbed_nm": 0, "bootstrap": 10, "largest_crop": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if not bound <= value < math.inf:
                raise ValueError(f"{name} must be at least {bound}, found {value}")
        if self.n_shells > MOST_SHELLS:
            raise ValueError(f"n_shells must be at most {MOST_SHELLS}, found {self.n_shells}")
        if self.compat and self.method != "pairs":
            raise ValueError(f"compat belongs to method 'pairs', found method {self.method!r}")
        for name in ("pm_labels", "ne_labels"):
            if any(value <= 0 for value in getattr(self, name)):
                raise ValueError(f"{name} must be labels above 0, found {list(getattr(self, name))}")
        if len(self.zarr_chunks) != 3 or min(self.zarr_chunks) < 1:
            raise ValueError(f"zarr_chunks must be three lengths of at least 1, found {self.zarr_chunks}")
