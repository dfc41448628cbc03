"""Oracle, reference and robust estimator on phantoms with known truth, as a Markdown table.

    python benchmarks/estimators.py [--quick] [--phantom own] [--acceptance FILE.py] [--seeds 21 22]

Oracle: the true class histograms of the whole stack and every slice's true load, by Bayes' rule.
Dice is that of posterior >= threshold against the truth, before closing.  Reliability error: the largest
|share of truth - mean posterior| over the deciles of the posterior that hold at least `MIN_COUNT` voxels;
"chance" is two standard deviations of that difference for a calibrated posterior, were voxels independent.
The oracle's shapes are common to all slices too: where its own reliability error exceeds 0.05 (the last
column says so), no posterior of the form weight of the slice x common shapes need reach it.
False positives: share of the stack's voxels labelled at 0.5 that are not particles; shown for particle-free
stacks (load 0).  Drift is +-10 grey levels; "blank" has two empty slices.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytomill.kernels.background import background_histogram
from cytomill.kernels.binning import choose_binning, slice_range, to_bins
from cytomill.nanoparticles.config import NanoparticleSegConfig
from cytomill.nanoparticles.mixture import ReferenceEstimator
from cytomill.nanoparticles.model import PARTICLES
from cytomill.nanoparticles.robust import RobustEstimator
from cytomill.phantoms.nanoparticles import GAIN_16, OFFSET_16, make_volume

LOADS = (0.0, 0.0005, 0.005, 0.02, 0.045, 0.1)
CONDITIONS = ("plain", "blank", "drift", "16 bit")
COLUMNS = (
    "phantom",
    "condition",
    "seed",
    "load %",
    "oracle best / .5 / .95",
    "reference .5 / .95",
    "robust .5 / .95",
    "reliability oracle / reference / robust (chance)",
    "false positives reference / robust",
    "robust verdict",
    "misses",
    "oracle misses",
)
#: Promises: Dice this near to the oracle's, reliability error a decile.
NEAR, CALIBRATED = 0.02, 0.05
#: Deciles with fewer voxels say more about chance than about calibration.
MIN_COUNT = 1000
DRIFT = 10.0


@dataclass(frozen=True)
class Score:
    """What one estimator reached on one phantom."""

    best: float
    at_half: float
    at_95: float
    reliability: float
    false_positives: float
    verdict: str


def slice_histograms(volume: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """(Z, 256) int64 histograms of 8-bit slices, of the masked voxels where a mask is given."""
    rows = [image if mask is None else image[mask[z]] for z, image in enumerate(volume)]
    return np.stack([np.bincount(np.ravel(row), minlength=256) for row in rows])


def oracle_tables(hist: np.ndarray, hist_particles: np.ndarray) -> np.ndarray:
    """(Z, 256) float16 posteriors from the true class histograms and the true load of each slice."""
    hist_rest = hist - hist_particles
    p_np = hist_particles.sum(0) / max(hist_particles.sum(), 1)
    p_bg = hist_rest.sum(0) / max(hist_rest.sum(), 1)
    load = (hist_particles.sum(1) / hist.sum(1))[:, None]
    mix = load * p_np + (1 - load) * p_bg
    return np.divide(load * p_np, mix, out=np.zeros_like(mix), where=mix > 0).astype(np.float16)


def estimate(estimator, volume: np.ndarray, hist: np.ndarray):
    """Run an estimator on an 8-bit stack; returns its mixture and its posterior."""
    sampled = np.ones(len(volume), bool)
    thresholds = estimator.thresholds(hist, sampled)
    config = estimator.config
    background = np.stack(
        [
            background_histogram(image, hist[z], *thresholds.of_slice(z), config.halo_pad, config.min_size)
            for z, image in enumerate(volume)
        ]
    )
    mixture = estimator.fit(hist, background, thresholds, sampled)
    return mixture, estimator.posterior(mixture, hist)


def dice(tables: np.ndarray, hist: np.ndarray, hist_particles: np.ndarray, threshold: float) -> float:
    """Dice of ``posterior >= threshold`` against the truth."""
    chosen = tables >= np.float16(threshold)
    labelled = (hist * chosen).sum()
    return float(2 * (hist_particles * chosen).sum() / max(labelled + hist_particles.sum(), 1))


def reliability(tables: np.ndarray, hist: np.ndarray, hist_particles: np.ndarray) -> np.ndarray:
    """(10,) share of truth minus mean posterior a decile, NaN below `MIN_COUNT` voxels."""
    p = tables.astype(np.float64)
    decile = np.minimum((p * 10).astype(int), 9)
    out = np.full(10, np.nan)
    for k in range(10):
        inside = hist * (decile == k)
        if inside.sum() >= MIN_COUNT:
            out[k] = ((hist_particles * (decile == k)).sum() - (inside * p).sum()) / inside.sum()
    return out


def chance(tables: np.ndarray, hist: np.ndarray) -> float:
    """Largest two standard deviations of a decile's reliability, of a calibrated posterior."""
    p = tables.astype(np.float64)
    decile = np.minimum((p * 10).astype(int), 9)
    inside = [hist * (decile == k) for k in range(10)]
    counted = [rows for rows in inside if rows.sum() >= MIN_COUNT]
    return max((2 * float(np.sqrt((rows * p * (1 - p)).sum()) / rows.sum()) for rows in counted), default=0.0)


def score(tables: np.ndarray, hist: np.ndarray, hist_particles: np.ndarray, verdict: str = "") -> Score:
    """All figures of one set of posterior tables."""
    wrong = ((hist - hist_particles) * (tables >= np.float16(0.5))).sum() / hist.sum()
    return Score(
        max(dice(tables, hist, hist_particles, t) for t in np.linspace(0.05, 0.95, 19)),
        dice(tables, hist, hist_particles, 0.5),
        dice(tables, hist, hist_particles, 0.95),
        float(np.nanmax(np.abs(reliability(tables, hist, hist_particles)))),
        float(wrong),
        verdict,
    )


def load_acceptance(path: Path):
    """Import the acceptance phantom's module from its file."""
    spec = importlib.util.spec_from_file_location("acceptance_phantom", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _acceptance_load(module, shape: tuple[int, int, int], seed: int, density: float) -> float:
    """Load that the acceptance phantom's discs cover, without drawing the images."""
    discs = module._particles(shape, seed, density, set())
    covered = 0
    for z in range(shape[0]):
        mask = np.zeros(shape[1:], bool)
        for y, x, radius, _ in discs[z]:
            y0, y1 = max(int(y - radius - 1), 0), min(int(y + radius + 2), shape[1])
            x0, x1 = max(int(x - radius - 1), 0), min(int(x + radius + 2), shape[2])
            if y0 < y1 and x0 < x1:
                distance = (np.arange(y0, y1)[:, None] - y) ** 2 + (np.arange(x0, x1)[None, :] - x) ** 2
                mask[y0:y1, x0:x1] |= distance <= radius**2
        covered += np.count_nonzero(mask)
    return covered / np.prod(shape)


def acceptance_phantom(module, shape, seed: int, load: float) -> tuple[np.ndarray, np.ndarray]:
    """The acceptance phantom at about `load` (its aggregates are few and large: the nearest density)."""
    if load == 0:
        return module.make_volume(shape, seed=seed, agg_per_mpx=1.0, no_np=range(shape[0]))
    densities = load * 1000 * np.geomspace(0.5, 4.0, 28)
    loads = [_acceptance_load(module, shape, seed, density) for density in densities]
    nearest = int(np.argmin(np.abs(np.log(np.array(loads) / load))))
    return module.make_volume(shape, seed=seed, agg_per_mpx=float(densities[nearest]))


def under(condition: str, volume: np.ndarray, truth: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Put a plain 8-bit phantom under a condition; what comes back is 8-bit bins again."""
    depth = len(volume)
    volume, truth = volume.copy(), truth.copy()
    rng = np.random.default_rng([seed, 77])
    if condition == "blank":
        for z in (depth // 8, depth // 2):
            volume[z], truth[z] = 0, False
    elif condition == "drift":
        phase, turns = rng.uniform(0, 2 * np.pi, 2), np.arange(depth) / max(depth, 8)
        wave = 0.7 * np.sin(8.2 * turns + phase[0]) + 0.3 * np.sin(25.8 * turns + phase[1])
        moved = volume + (DRIFT * wave)[:, None, None]
        volume = np.clip(np.rint(moved), 0, 255).astype(np.uint8)
    elif condition == "16 bit":
        fine = OFFSET_16 + GAIN_16 * (volume + rng.random(volume.shape) - 0.5)
        deep = np.clip(np.rint(fine), 0, 65535).astype(np.uint16)
        binning = choose_binning(np.stack([slice_range(image) for image in deep]))
        volume = np.stack([to_bins(image, binning) for image in deep])
    return volume, truth


def posteriors(
    volume: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, str]]]:
    """Histograms, those of the particles, and tables and verdict of the three on one 8-bit stack."""
    hist = slice_histograms(volume)
    hist_particles = slice_histograms(volume, truth)
    out = {"oracle": (oracle_tables(hist, hist_particles), "")}
    for name, kind in (("reference", ReferenceEstimator), ("robust", RobustEstimator)):
        config = NanoparticleSegConfig(root_path="", spacing_dir="", estimator=name)
        try:
            mixture, posterior = estimate(kind(config), volume, hist)
        except (RuntimeError, ValueError) as error:
            out[name] = np.zeros(hist.shape, np.float16), f"refused: {error}"
            continue
        out[name] = posterior.tables, mixture.verdict
    return hist, hist_particles, out


def judge(volume: np.ndarray, truth: np.ndarray) -> dict[str, Score]:
    """Scores of the three on one 8-bit stack."""
    hist, hist_particles, found = posteriors(volume, truth)
    return {name: score(tables, hist, hist_particles, verdict) for name, (tables, verdict) in found.items()}


def pooled_reliability(stacks: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """(10,) reliability of several stacks together, each given as (tables, histograms, of particles)."""
    return reliability(*(np.concatenate(part) for part in zip(*stacks)))


def failures(load: float, scores: dict[str, Score]) -> list[str]:
    """Which of the robust estimator's promises one row breaks."""
    robust, oracle = scores["robust"], scores["oracle"]
    if load == 0:
        broken = {"fp": robust.false_positives >= 1e-5, "verdict": robust.verdict == PARTICLES}
    else:
        broken = {
            "0.5": robust.at_half < oracle.best - NEAR,
            "0.95": robust.at_95 < oracle.at_95 - NEAR,
            "reliability": robust.reliability > CALIBRATED,
        }
    return [name for name, is_broken in broken.items() if is_broken]


def oracle_failures(load: float, oracle: Score) -> list[str]:
    """Which of the same promises the oracle breaks; its Dice is measured against itself."""
    return failures(load, {"robust": oracle, "oracle": oracle}) if load else []


def main(arguments: list[str] | None = None) -> int:
    """Print the table; exit code 1 where the robust estimator breaks a promise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 12 x 384 x 384, plain only")
    parser.add_argument("--phantom", choices=("own", "acceptance", "both"), default="both")
    default = Path(__file__).resolve().parents[2] / "shared" / "golden" / "nanoparticles" / "gen_synthetic.py"
    parser.add_argument("--acceptance", type=Path, default=default, help="file of the acceptance phantom")
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22])
    parser.add_argument("--shape", type=int, nargs=3, default=None)
    options = parser.parse_args(arguments)
    shape = tuple(options.shape or ((12, 384, 384) if options.quick else (24, 512, 512)))
    seeds = options.seeds[:1] if options.quick else options.seeds
    conditions = CONDITIONS[:1] if options.quick else CONDITIONS
    phantoms = ["own", "acceptance"] if options.phantom == "both" else [options.phantom]
    if "acceptance" in phantoms and not options.acceptance.is_file():
        print(f"{options.acceptance} is not there: the acceptance phantom is left out", file=sys.stderr)
        phantoms.remove("acceptance")
    module = load_acceptance(options.acceptance) if "acceptance" in phantoms else None
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    pool: dict[tuple[str, float], list] = {}
    rows = missed = beyond = 0
    for name in phantoms:
        for seed in seeds:
            for load in LOADS:
                if name == "own":
                    plain = make_volume(shape, seed, load)
                else:
                    plain = acceptance_phantom(module, shape, seed, load)
                for condition in conditions:
                    volume, truth = under(condition, *plain, seed)
                    hist, hist_particles, found = posteriors(volume, truth)
                    s = {k: score(t, hist, hist_particles, verdict) for k, (t, verdict) in found.items()}
                    pool.setdefault((name, load), []).append((found["robust"][0], hist, hist_particles))
                    broken, unreached = failures(load, s), oracle_failures(load, s["oracle"])
                    rows, missed = rows + 1, missed + bool(broken)
                    beyond += bool(broken) and set(broken) <= set(unreached)
                    o, r, b = s["oracle"], s["reference"], s["robust"]
                    dices = (
                        f"{o.best:.3f} / {o.at_half:.3f} / {o.at_95:.3f} | {r.at_half:.3f} / {r.at_95:.3f} | "
                        f"{b.at_half:.3f} / {b.at_95:.3f} | "
                        f"{o.reliability:.3f} / {r.reliability:.3f} / {b.reliability:.3f} "
                        f"({chance(found['robust'][0], hist):.3f})"
                        if load
                        else "- | - | - | -"
                    )
                    print(
                        f"| {name} | {condition} | {seed} | {100 * truth.mean():.3f} | {dices} | "
                        f"{100 * r.false_positives:.4f} % / {100 * b.false_positives:.4f} % | {b.verdict} | "
                        f"{', '.join(broken) or '-'} | {', '.join(unreached) or '-'} |",
                        flush=True,
                    )
    print("\nShare of truth minus mean posterior a decile, robust, all seeds and conditions together:\n")
    print(f"| phantom | load % | {' | '.join(f'{k / 10:.1f}-{(k + 1) / 10:.1f}' for k in range(10))} |")
    print(f"|{'---|' * 12}")
    for (name, load), stacks in pool.items():
        cells = ("-" if np.isnan(v) else f"{v:+.3f}" for v in pooled_reliability(stacks))
        print(f"| {name} | {100 * load:g} | {' | '.join(cells)} |")
    print(f"\n{rows - missed} of {rows} rows keep every promise of the robust estimator.")
    print(f"{missed - beyond} break one that the oracle keeps, {beyond} only such as the oracle breaks too.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
