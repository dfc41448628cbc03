"""Configuration of the nanoparticle pipeline: one dataclass for the class API, the CLI and campaigns."""

# No postponed annotations here: argparse-dataclass reads the types at run time.
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Real

ESTIMATORS = ("robust", "reference")
PI_SOLVERS = ("newton", "bounded")
POSTERIOR_DTYPES = ("float16", "uint8")
POLARITIES = ("auto", "bright", "dark")
BORDERS = ("pad", "zero")
#: Options that are whole numbers, and those that are three of them.
WHOLE = ("max_iter", "sampling_step", "halo_pad", "min_size", "radius", "connectivity", "min_particle_size")
WHOLE_TRIPLES = ("zarr_chunks", "downsample", "shard_shape")


def _numbers(kind: type, count: int, default: tuple | None, help: str):
    """A dataclass field for `count` numbers, given on the command line as separate words."""
    return field(
        default=default,
        metadata={"type": kind, "nargs": count, "metavar": "N", "help": help},
    )


def _whole(name: str, value: object) -> int:
    """`value` as an int; ValueError where it is no whole number."""
    if isinstance(value, (bool, str)) or not isinstance(value, Real) or value != value // 1:
        raise ValueError(f"{name} must be a whole number, found {value!r}")
    return int(value)


def _require(holds: bool, name: str, expected: str, found: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, found {found}")


@dataclass
class NanoparticleSegConfig:
    """Parameters of nanoparticle segmentation.

    Names and defaults of the first block are those that users of the published method know.
    Lengths are in nm, thresholds in per cent or probability.

    Raises
    ------
    ValueError
        If a value makes no sense; one sentence that names the field.
    """

    root_path: str = field(metadata={"help": "Zarr v3 store that holds images/{z-y-x}"})
    spacing_dir: str = field(metadata={"help": "spacing in nm, for example 50-10-10"})
    verbose: bool = field(default=False, metadata={"help": "say what happens"})
    max_iter: int = field(default=10000, metadata={"help": "EM iterations at the most"})
    eps: float = field(default=1e-12, metadata={"help": "floor of probabilities"})
    nll_tol: float = field(default=1e-10, metadata={"help": "EM stops below this gain in nll"})
    sampling_step: int = field(default=1, metadata={"help": "fit on every n-th slice"})
    percent_th_low: float = field(
        default=99.5, metadata={"help": "percentile of th_low (reference estimator)"}
    )
    percent_th_high: float = field(
        default=99.8, metadata={"help": "percentile of th_high (reference estimator)"}
    )
    halo_pad: int = field(
        default=20, metadata={"help": "pixels around candidates left out of the background"}
    )
    min_size: int = field(default=20, metadata={"help": "smallest candidate, pixels a slice"})
    posterior_th: float | None = field(
        default=None,
        metadata={"type": float, "help": "posterior threshold of a label (reference: 0.95, robust: 0.5)"},
    )
    beta_params: tuple = _numbers(float, 2, (1.0, 20.0), "alpha and beta of the prior on the mixing weight")
    zarr_chunks: tuple = _numbers(int, 3, (1, 1024, 1024), "chunk of the volumes written")
    model_name: str | None = field(
        default=None, metadata={"type": str, "help": "default: nps-<timestamp>"}
    )

    estimator: str = field(default="robust", metadata={"choices": ESTIMATORS, "help": "see the docs"})
    pi_solver: str = field(
        default="newton", metadata={"choices": PI_SOLVERS, "help": "solver of the mixing weight"}
    )
    posterior_dtype: str = field(
        default="float16", metadata={"choices": POSTERIOR_DTYPES, "help": "type of the posterior volume"}
    )
    polarity: str = field(
        default="auto", metadata={"choices": POLARITIES, "help": "whether particles are bright or dark"}
    )
    radius: int = field(default=1, metadata={"help": "radius of the closing ball, voxels"})
    closing_nm: float | None = field(
        default=None, metadata={"type": float, "help": "radius of the closing in nm, instead of radius"}
    )
    connectivity: int = field(
        default=2, metadata={"choices": (1, 2, 3), "help": "3-D connectivity of labels"}
    )
    min_particle_size: int = field(default=10, metadata={"help": "smallest label, voxels"})
    border: str = field(
        default="pad",
        metadata={"choices": BORDERS, "help": "closing at the volume's faces: pad, or zeros outside"},
    )
    downsample: tuple = _numbers(
        int, 3, (1, 1, 1), "block mean of the posterior before labelling, factors Z Y X"
    )
    downsample_sigma: tuple = _numbers(float, 3, (0.5, 1.5, 1.5), "Gaussian before the block mean, voxels")
    shard_shape: tuple | None = _numbers(
        int, 3, None, "shard of the volumes written (default: from the chunk)"
    )

    def __post_init__(self) -> None:
        self.beta_params = tuple(float(v) for v in self.beta_params)
        self.downsample_sigma = tuple(float(v) for v in self.downsample_sigma)
        for name in WHOLE:
            setattr(self, name, _whole(name, getattr(self, name)))
        for name in WHOLE_TRIPLES:
            if getattr(self, name) is not None:
                setattr(self, name, tuple(_whole(name, v) for v in getattr(self, name)))
        if self.model_name is None:
            self.model_name = f"nps-{datetime.now():%Y%m%d-%H%M%S}"
        if self.posterior_th is None:
            self.posterior_th = 0.95 if self.estimator == "reference" else 0.5
        self._check()

    def _check(self) -> None:
        for name, choices in (
            ("estimator", ESTIMATORS),
            ("pi_solver", PI_SOLVERS),
            ("posterior_dtype", POSTERIOR_DTYPES),
            ("polarity", POLARITIES),
            ("border", BORDERS),
            ("connectivity", (1, 2, 3)),
        ):
            if getattr(self, name) not in choices:
                listed = ", ".join(map(str, choices))
                raise ValueError(f"{name} must be one of {listed}; found {getattr(self, name)!r}")
        if self.model_name in (".", "..") or not re.fullmatch(r"[^/\\\x00-\x1f]+", str(self.model_name)):
            raise ValueError(
                f"model_name must be a folder's name without path separators, found {self.model_name!r}"
            )
        for name, least in (
            ("max_iter", 1),
            ("sampling_step", 1),
            ("nll_tol", 0),
            ("halo_pad", 0),
            ("min_size", 0),
            ("min_particle_size", 0),
            ("radius", 0),
        ):
            _require(getattr(self, name) >= least, name, f"at least {least}", getattr(self, name))
        _require(0 < self.eps < math.inf, "eps", "a positive number", self.eps)
        for name in ("percent_th_low", "percent_th_high"):
            _require(0 <= getattr(self, name) <= 100, name, "between 0 and 100", getattr(self, name))
        _require(0 < self.posterior_th <= 1, "posterior_th", "above 0 and at most 1", self.posterior_th)
        if self.closing_nm is not None:
            _require(0 <= self.closing_nm < math.inf, "closing_nm", "at least 0", self.closing_nm)
        if len(self.beta_params) != 2 or not all(1 <= v < math.inf for v in self.beta_params):
            raise ValueError(
                f"beta_params must be two numbers of at least 1, found {self.beta_params}: below 1 the "
                "posterior of the mixing weight is not convex and its maximum not unique"
            )
        shapes = (("zarr_chunks", 1), ("downsample", 1), ("downsample_sigma", 0), ("shard_shape", 1))
        for name, least in shapes:
            value = getattr(self, name)
            if value is not None:
                fits = len(value) == 3 and all(least <= v < math.inf for v in value)
                _require(fits, name, f"three numbers (Z, Y, X) of at least {least}", value)
