"""Figure of rank balance: who computed and who waited, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cytomill.reports import captions
from cytomill.reports.canvas import LIGHT, Picture, new_figure, styled, to_picture
from cytomill.reports.data import StageTiming
from cytomill.reports.quantities import percent_text

_COLUMNS = 3
#: More ranks than this are drawn as one outline: single bars would be hair lines.
_MANY_RANKS = 64
_MOST_TICKS = 6


def rank_balance(timings: Sequence[StageTiming]) -> Picture | None:
    """Busy and idle time of every rank, a panel a stage; None where no two ranks can be compared."""
    stages = [t for t in timings if t.busy_seconds]
    if not any(len(t.busy_seconds) > 1 for t in stages):
        return None
    columns = min(_COLUMNS, len(stages))
    rows = -(-len(stages) // columns)
    with styled():
        figure, axes = new_figure(8.4, 0.4 + 1.9 * rows, rows=rows, columns=columns)
        for ax, stage in zip(axes, stages):
            draw_stage(ax, stage)
        for ax in axes[len(stages) :]:
            ax.set_axis_off()
        for ax in axes[: len(stages) : columns]:
            ax.set_ylabel("seconds")
        ranks = max(len(t.busy_seconds) for t in stages)
        rank_seconds = sum(t.seconds * len(t.busy_seconds) for t in stages)
        share = sum(sum(t.busy_seconds) for t in stages) / rank_seconds if rank_seconds > 0 else None
        text = percent_text(None if share is None else min(1.0, share))
        return to_picture(
            figure,
            f"Busy and idle time of each rank, {ranks} in all, in {len(stages)} stages; busy {text} overall",
            captions.BALANCE.format(share=text),
        )


def draw_stage(ax: Axes, stage: StageTiming) -> None:
    """Draw one stage's busy and idle time, a bar a rank."""
    busy = np.asarray(stage.busy_seconds, dtype=np.float64)
    wall = max(stage.seconds, float(busy.max()), 1e-9)
    ranks = np.arange(len(busy))
    if len(busy) <= _MANY_RANKS:
        ax.bar(ranks, np.full(len(busy), wall), width=0.8, color=LIGHT["idle"])
        ax.bar(ranks, busy, width=0.8, color=LIGHT["good"])
    else:
        edges = np.arange(len(busy) + 1) - 0.5
        ax.stairs(np.full(len(busy), wall), edges, fill=True, color=LIGHT["idle"])
        ax.stairs(busy, edges, fill=True, color=LIGHT["good"])
    # A single bar keeps the width that one of three would have.
    margin = 0.6 if len(busy) > 1 else 1.6
    ax.set_xlim(-margin, len(busy) - 1 + margin)
    ax.set_ylim(0, wall * 1.02)
    ax.set_xticks(ranks[:: -(-len(busy) // _MOST_TICKS)])
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel("rank")
    title = ax.set_title(f"{stage.name} · {percent_text(stage.busy_share)} busy", fontsize=9.5, loc="left")
    title.set_parse_math(False)
