"""Pictures of a partition and of an RDF, for notebooks and scripts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, get_backend
from matplotlib.axes import Axes
from matplotlib.backends import BackendFilter, backend_registry
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cytomill.partitioning.coordinates import check_partition
from cytomill.partitioning.features import compute_partition_features
from cytomill.partitioning.shell_mesh import shell_mesh

_INK, _MUTED, _GRID = "#1c2530", "#5b6776", "#e1e6ec"
_BLUE, _ORANGE, _GREY = "#0072b2", "#d55e00", "#b9c4d1"
_SERIES = (_BLUE, _ORANGE, "#1b8a5a", "#7a4fbf", "#c8a200", "#8c564b")
_DPI = 200


def _new_figure(width: float, height: float, save_path: object) -> Figure:
    """A figure without pyplot where it is saved; one that pyplot can show where it is not."""
    if save_path is not None:
        return Figure(figsize=(width, height), layout="constrained")
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="constrained")


def _finish(figure: Figure, save_path: str | os.PathLike | None) -> Figure:
    if save_path is not None:
        path = Path(save_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, facecolor="white")
    elif get_backend().lower() not in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE):
        from matplotlib import pyplot

        pyplot.show()
    return figure


def _dress(ax: Axes, grid: str | None = "y") -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(_MUTED)
    ax.tick_params(colors=_MUTED, labelcolor=_INK, labelsize=9)
    if grid:
        ax.grid(axis=grid, color=_GRID, lw=0.7)
        ax.set_axisbelow(True)
    ax.title.set_fontsize(11)


def _composite(partition_masks: Any, partition_list: Any) -> np.ndarray:
    """Ids of one volume, from a list of masks (the first is shell 1) or from the ids themselves."""
    given = partition_masks if partition_masks is not None else partition_list
    if given is None:
        raise ValueError("visualize_partitions needs partition_masks (or partition_list); found neither")
    if isinstance(given, np.ndarray) and given.dtype != bool:
        ids = check_partition(given)
        return ids[None] if ids.ndim == 2 else ids
    masks = [np.asarray(mask) for mask in ([given] if isinstance(given, np.ndarray) else given)]
    if not masks or any(mask.shape != masks[0].shape or mask.ndim not in (2, 3) for mask in masks):
        shapes = sorted({mask.shape for mask in masks})
        raise ValueError(f"the masks of shells must be planes or volumes of one shape; found {shapes}")
    composite = np.zeros(masks[0].shape, np.uint16)
    for i, mask in enumerate(masks, 1):
        composite[mask > 0] = i
    return composite[None] if composite.ndim == 2 else composite


def _shell_colours(cmap: str | Colormap, count: int) -> np.ndarray:
    """One colour a shell, (count, 4)."""
    colours = colormaps[cmap] if isinstance(cmap, str) else cmap
    if isinstance(colours, ListedColormap) and colours.N <= 24:
        return colours(np.arange(count) % colours.N)
    return colours(np.linspace(0.04, 0.96, count))


def _shell_bar(figure: Figure, ax: Axes, colours: np.ndarray, pad: float = 0.02) -> None:
    count = len(colours)
    edges = BoundaryNorm(np.arange(0.5, count + 1), count)
    bar = figure.colorbar(ScalarMappable(edges, ListedColormap(colours)), ax=ax, shrink=0.75, pad=pad)
    step = max(1, -(-count // 12))
    bar.set_ticks(np.arange(1, count + 1, step))
    bar.ax.tick_params(length=0, labelsize=9)
    bar.set_label("shell (1 at the nuclear envelope)", color=_INK)
    bar.outline.set_visible(False)
    bar.minorticks_off()


def visualize_partitions(
    partition_masks: np.ndarray | Sequence[np.ndarray] | None = None,
    slice_idx: int | None = None,
    save_path: str | os.PathLike | None = None,
    partition_list: Sequence[np.ndarray] | None = None,
    cmap: str | Colormap = "viridis",
    *,
    voxel_size_nm: Sequence[float] | None = None,
) -> Figure:
    """Draw the shells of a cell: one slice of them, or all, cut open.

    Parameters
    ----------
    partition_masks : sequence of (Z, Y, X) ndarray, or (Z, Y, X) integer ndarray
        A mask a shell, from the nuclear envelope outwards; or the partition itself. Planes work too.
    slice_idx : int, optional
        Slice (Z) to draw; None draws the shells in three dimensions, without the octant towards the eye.
    save_path : path-like, optional
        File to write, its folder is made; None shows the figure.
    partition_list : sequence of ndarray, optional
        Another name of `partition_masks`.
    cmap : str or Colormap
        Colours of the shells.
    voxel_size_nm : sequence of float, optional
        (Z, Y, X): axes are in µm instead of voxels.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no masks, their shapes differ, no voxel is set, or the slice does not exist.
    """
    ids = _composite(partition_masks, partition_list)
    count = int(ids.max(initial=0))
    if isinstance(partition_masks, Sequence) or partition_list is not None:
        count = len(partition_masks if partition_masks is not None else partition_list)
    if not ids.any():
        raise ValueError("there is no shell to draw: no voxel of the partition is set")
    if slice_idx is None and ids.shape[0] == 1:
        slice_idx = 0
    colours = _shell_colours(cmap, count)
    size = np.ones(3) if voxel_size_nm is None else np.asarray(voxel_size_nm, np.float64) / 1000
    unit = "voxels" if voxel_size_nm is None else "µm"
    if slice_idx is None:
        figure = _new_figure(7.6, 6.0, save_path)
        _draw_shells(figure, ids, colours, size, unit)
    else:
        if not -ids.shape[0] <= slice_idx < ids.shape[0]:
            raise ValueError(f"there is no slice {slice_idx}: the partition has {ids.shape[0]}")
        height, width = np.array(ids.shape[1:]) * size[1:] / max(ids.shape[1:] * size[1:])
        figure = _new_figure(1.9 + 5.2 * max(width, 0.4), 0.9 + 5.2 * max(height, 0.4), save_path)
        _draw_slice(figure, ids, slice_idx % ids.shape[0], colours, size, unit)
    return _finish(figure, save_path)


def _draw_slice(
    figure: Figure, ids: np.ndarray, z: int, colours: np.ndarray, size: np.ndarray, unit: str
) -> None:
    ax = figure.subplots()
    table = np.vstack([[0.955, 0.962, 0.97, 1.0], colours])
    _, height, width = ids.shape
    extent = (-0.5 * size[2], (width - 0.5) * size[2], (height - 0.5) * size[1], -0.5 * size[1])
    ax.imshow(table[ids[z]], extent=extent, interpolation="nearest")
    ax.set_xlabel(f"x ({unit})")
    ax.set_ylabel(f"y ({unit})")
    place = f"z = {z}" if unit == "voxels" else f"z = {z * size[0]:.2f} µm (slice {z})"
    ax.set_title("Radial partitions" + (f", {place}" if ids.shape[0] > 1 else ""), color=_INK)
    _dress(ax, grid=None)
    _shell_bar(figure, ax, colours)


def _draw_shells(figure: Figure, ids: np.ndarray, colours: np.ndarray, size: np.ndarray, unit: str) -> None:
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    corners, shells, light = shell_mesh(ids, size)
    ax = figure.add_subplot(projection="3d")
    faces = colours[shells - 1].copy()
    faces[:, :3] *= light[:, None]
    # Edges in the colour of the face close the hairline gaps between neighbours.
    ax.add_collection3d(Poly3DCollection(corners[:, :, ::-1], facecolors=faces, edgecolors=faces, lw=0.25))
    low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    for axis, name in enumerate("zyx"):
        getattr(ax, f"set_{name}lim")(low[axis], high[axis])
        getattr(ax, f"set_{name}label")(f"{name} ({unit})", color=_INK)
        pane = getattr(ax, f"{name}axis")
        pane.set_pane_color((1, 1, 1, 0))
        pane.set_major_locator(MaxNLocator(4))
    ax.set_box_aspect((high - low)[::-1], zoom=1.1)
    ax.grid(False)
    ax.tick_params(labelsize=8, colors=_MUTED)
    ax.view_init(elev=28, azim=-45)
    ax.set_title("Radial partitions, cut open", color=_INK, fontsize=11)
    _shell_bar(figure, ax, colours, pad=0.11)


def plot_partition_features(
    partition_mask: np.ndarray | pd.DataFrame, save_path: str | os.PathLike | None = None
) -> Figure:
    """Draw the sizes of the zones as bars, their organelles beside them, and a table of both.

    Parameters
    ----------
    partition_mask : DataFrame or (Z, Y, X) ndarray
        The table of :func:`~cytomill.partitioning.features.compute_partition_features`, or a partition,
        which is measured first.
    save_path : path-like, optional
        File to write, its folder is made; None shows the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the table has no zones, or lacks ``zone_id`` or ``zone_volume``.
    """
    table = partition_mask
    if not isinstance(table, pd.DataFrame):
        table = compute_partition_features(np.asarray(partition_mask))
    missing = [name for name in ("zone_id", "zone_volume") if name not in table]
    if missing or not len(table):
        reason = (
            f"lacks the column {missing[0]}" if missing else "has no rows: no voxel of the partition is set"
        )
        raise ValueError(f"the table of zones {reason}")
    organelles = [name.removesuffix("_count") for name in table if str(name).endswith("_count")]
    panels = 1 + bool(organelles) + any(f"{name}_density" in table for name in organelles)
    rows = len(table) + 2
    figure = _new_figure(4.6 * max(panels, 1.6), 3.4 + 0.24 * rows, save_path)
    grid = figure.add_gridspec(2, panels, height_ratios=(3.4, 0.24 * rows))
    zones = table["zone_id"].to_numpy()
    ax = figure.add_subplot(grid[0, 0])
    column, label = _size_column(table)
    ax.bar(zones, table[column], color=_shell_colours("viridis", len(zones)), width=0.78)
    _zone_axis(ax, zones, label, "Size of the zones")
    if organelles:
        ax = figure.add_subplot(grid[0, 1])
        _bars_side_by_side(ax, table, zones, organelles)
        _zone_axis(ax, zones, "organelle (voxels)", "Organelle voxels in the zones")
        if len(organelles) > 1:
            ax.legend(frameon=False, fontsize=8.5)
    if panels == 3:
        ax = figure.add_subplot(grid[0, 2])
        for i, name in enumerate(organelles):
            if f"{name}_density" in table:
                share = 100 * table[f"{name}_density"]
                ax.plot(zones, share, marker="o", ms=4, color=_SERIES[i % len(_SERIES)], label=name)
        ax.set_ylim(bottom=0)
        _zone_axis(ax, zones, "share of the zone (%)", "Organelle density")
        ax.legend(frameon=False, fontsize=8.5)
    _draw_table(figure.add_subplot(grid[1, :]), table, column, label, organelles)
    return _finish(figure, save_path)


def _size_column(table: pd.DataFrame) -> tuple[str, str]:
    for column, label in (("zone_volume_um3", "volume (µm³)"), ("zone_area_um2", "area (µm²)")):
        if column in table:
            return column, label
    return "zone_volume", "volume (voxels)"


def _zone_axis(ax: Axes, zones: np.ndarray, label: str, title: str) -> None:
    ax.set_xlabel("zone (1 at the nuclear envelope)")
    ax.set_ylabel(label)
    ax.set_title(title, color=_INK)
    if len(zones) <= 12:
        ax.set_xticks(zones)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    _dress(ax)


def _bars_side_by_side(ax: Axes, table: pd.DataFrame, zones: np.ndarray, organelles: Sequence[str]) -> None:
    width = 0.78 / len(organelles)
    for i, name in enumerate(organelles):
        place = zones + (i - (len(organelles) - 1) / 2) * width
        ax.bar(place, table[f"{name}_count"], width, color=_SERIES[i % len(_SERIES)], label=name)


def _draw_table(ax: Axes, table: pd.DataFrame, column: str, label: str, organelles: Sequence[str]) -> None:
    ax.axis("off")
    total = table["zone_volume"].sum()
    heads = ["zone", "voxels", "share"]
    cells: list[list[str]] = [
        [f"{zone:g}", f"{voxels:,.0f}", f"{100 * voxels / total:.1f} %" if total else "–"]
        for zone, voxels in zip(table["zone_id"], table["zone_volume"], strict=True)
    ]
    bottom = ["all", f"{total:,.0f}", "100 %"]
    if column != "zone_volume":
        heads.append(label)
        for row, value in zip(cells, table[column], strict=True):
            row.append(f"{value:,.4g}")
        bottom.append(f"{table[column].sum():,.4g}")
    if all(f"zone_center_{name}" in table for name in "zyx"):
        heads.append("centre z, y, x (voxels)")
        for row, centre in zip(cells, table[[f"zone_center_{n}" for n in "zyx"]].to_numpy(), strict=True):
            row.append(", ".join(f"{c:.1f}" for c in centre) if np.isfinite(centre).all() else "–")
        bottom.append("")
    for name in organelles:
        heads.append(f"{name} (voxels)")
        for row, value in zip(cells, table[f"{name}_count"], strict=True):
            row.append(f"{value:,.0f}")
        bottom.append(f"{table[f'{name}_count'].sum():,.0f}")
    drawn = ax.table([*cells, bottom], colLabels=heads, loc="center", cellLoc="right", bbox=(0, 0, 1, 1))
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8.5)
    for (row, _), cell in drawn.get_celld().items():
        cell.set_edgecolor(_GRID)
        cell.visible_edges = "B"
        cell.get_text().set_color(_MUTED if row == 0 else _INK)
        if row == len(cells) + 1:
            cell.get_text().set_weight("bold")


def plot_radial_rdf(
    rdf_results: Mapping[str, Any] | None, save_path: str | os.PathLike | None = None
) -> Figure:
    """Draw g by radial position, and the voxels that it comes from.

    Parameters
    ----------
    rdf_results : mapping
        Of :func:`~cytomill.partitioning.xvg_rdf.calculate_rdf_from_xvg`; an interval ``rdf_low``,
        ``rdf_high`` is drawn where it is there.
    save_path : path-like, optional
        File to write, its folder is made; None shows the figure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are no results.
    """
    if rdf_results is None:
        raise ValueError("there are no RDF results to draw: the mask had no organelle voxel")
    radii = np.asarray(rdf_results["radii"], np.float64)
    rdf = np.asarray(rdf_results["rdf"], np.float64)
    edges = np.linspace(0, 1, len(radii) + 1)
    figure = _new_figure(10.4, 4.1, save_path)
    ax, counts_ax = figure.subplots(1, 2)
    ax.stairs(rdf, edges, baseline=None, color=_BLUE, lw=1.0, alpha=0.45)
    if "rdf_low" in rdf_results and "rdf_high" in rdf_results:
        low, high = (np.asarray(rdf_results[name], np.float64) for name in ("rdf_low", "rdf_high"))
        ax.vlines(radii, low, high, color=_BLUE, lw=1.4)
        rdf_top = np.nanmax(np.append(high, rdf)) if np.isfinite(rdf).any() else 1
    else:
        rdf_top = np.nanmax(rdf) if np.isfinite(rdf).any() else 1
    ax.plot(radii, rdf, "o", color=_BLUE, ms=6, label="organelle")
    ax.axhline(1, color=_ORANGE, lw=1.2, ls=(0, (4, 2)), label="uniform density")
    for position in radii[~np.isfinite(rdf)]:
        ax.annotate("no voxel", (position, 0.03), rotation=90, ha="center", fontsize=8, color=_MUTED)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.15 * max(rdf_top, 1.0))
    ax.set_xlabel("radial position t (0 nuclear envelope, 1 plasma membrane)")
    ax.set_ylabel("enrichment over uniform density, g")
    ax.set_title("Radial distribution", color=_INK)
    ax.legend(frameon=False, fontsize=9)
    _dress(ax)
    _draw_counts(counts_ax, rdf_results, edges)
    return _finish(figure, save_path)


def _draw_counts(ax: Axes, results: Mapping[str, Any], edges: np.ndarray) -> None:
    volumes = np.asarray(results.get("shell_volumes", results.get("cyto_layer_counts")))
    counts = np.asarray(results.get("counts", results.get("organelle_layer_counts")))
    middle, width = (edges[:-1] + edges[1:]) / 2, 0.38 * (edges[1] - edges[0])
    ax.bar(middle - width / 2, volumes, width, color=_GREY, label="cytoplasm")
    ax.bar(middle + width / 2, counts, width, color=_BLUE, label="organelle")
    ax.set_yscale("log")
    top = max(volumes.max(initial=1), 1)
    ax.set_ylim(0.7, 4 * top)
    ax.set_xlim(0, 1)
    ax.set_xlabel("radial position t (0 nuclear envelope, 1 plasma membrane)")
    ax.set_ylabel("voxels (log scale)")
    ax.set_title("Voxels in each shell", color=_INK)
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    _dress(ax)
