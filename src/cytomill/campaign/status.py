"""`cytomill status`: how far a campaign is, from its ledger, its lock and its telemetry.

Nothing is locked or written, so that it may be asked at any time, also while a run is going on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from cytomill.campaign.config import Campaign, CampaignError, Dataset
from cytomill.campaign.opening import RESOLVED, TELEMETRY, in_order, open_datasets, stored_campaign
from cytomill.campaign.pipeline import REPORT
from cytomill.campaign.pipelines import PIPELINES
from cytomill.reports.terminal import MANY, StatusRow, fold_status, status_table
from cytomill.runtime.journals import journal_files
from cytomill.runtime.ledger import LedgerState, StageState, replay
from cytomill.runtime.lock_owner import read_owner
from cytomill.runtime.telemetry import read_events

WAITING, RUNNING, DONE, SET_ASIDE, STOPPED = "waiting", "running", "done", "set aside", "stopped"


@dataclass
class StageStatus:
    """How far one stage of one dataset is.

    Parameters
    ----------
    dataset, stage : str
        Whose.
    state : str
        ``waiting``, ``running``, ``done``, ``set aside``, or ``stopped`` (begun, but no run goes on).
    units, done, set_aside, in_flight : int
        Units in all (0: not known yet), finished, given up, and being computed now.
    bytes_per_second : float or None
        Rate at which the present launch writes shards.
    seconds_left : float or None
        Estimated from the present launch's rate.
    errors : list of str
        Why units or the dataset were set aside, and the last error of units that are tried again.
    """

    dataset: str
    stage: str
    state: str
    units: int = 0
    done: int = 0
    set_aside: int = 0
    in_flight: int = 0
    bytes_per_second: float | None = None
    seconds_left: float | None = None
    errors: list[str] = field(default_factory=list)


@dataclass
class Launch:
    """One time that the campaign was started.

    Parameters
    ----------
    name : str
        Numbered name.
    started : str
        ISO 8601; empty where it was not recorded.
    ranks : int
        MPI ranks; 0 where it was not recorded.
    hosts : list of str
        Where.
    """

    name: str
    started: str = ""
    ranks: int = 0
    hosts: list[str] = field(default_factory=list)


@dataclass
class CampaignStatus:
    """How far a campaign is.

    Parameters
    ----------
    name : str
        The campaign's name.
    folder : Path
        Its output folder.
    state : str
        ``running``, ``done``, ``set aside`` (all that can be done is done), ``stopped`` or ``waiting``.
        Without a report of its results a campaign is not done.
    owner : str
        Who runs it now, or ran it when it died; empty where nobody holds the lock.
    stages : list of StageStatus
        In the order of datasets and stages.
    launches : list of Launch
        So far.
    notes : list of str
        Damaged journal lines, datasets whose input cannot be opened, what is missing of the report.
    """

    name: str
    folder: Path
    state: str
    owner: str = ""
    stages: list[StageStatus] = field(default_factory=list)
    launches: list[Launch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"folder": str(self.folder)}


def read_status(folder: Path) -> CampaignStatus:
    """Read how far the campaign in an output folder is.

    Parameters
    ----------
    folder : Path
        Output folder of the campaign.

    Raises
    ------
    CampaignError
        If the folder holds no campaign, or its description is damaged.
    """
    folder = Path(folder)
    try:
        campaign = stored_campaign(folder)
    except CampaignError:
        raise
    except ValueError as error:
        raise CampaignError(
            f"{folder / RESOLVED}: the stored campaign is damaged ({error}); run 'cytomill verify --mend'"
        ) from error
    ledger = replay(folder)
    owner = read_owner(folder)
    running = owner.launch if owner is not None and owner.alive else None
    opened = open_datasets(campaign)
    status = CampaignStatus(campaign.name, folder, WAITING, owner.text if owner else "")
    status.launches = [_launch(line) for line in ledger.launches]
    status.notes = [*ledger.damaged, *opened.set_aside.values()]
    paces = {} if running is None else _paces(folder, running, ledger.stages)
    rows: dict[str, list[StageStatus]] = {}
    lost: set[str] = set()
    for dataset in in_order(campaign.datasets):  # those first whose results others read
        rows[dataset.name] = []
        own = {stage: known for (name, stage), known in ledger.stages.items() if name == dataset.name}
        planned = {stage.name: stage for stage in opened.stages.get(dataset.name, ())}
        refused = opened.set_aside.get(dataset.name, "") or _needs_lost(dataset, lost)
        for name in _stage_names(dataset, own, planned):
            row = _stage_status(dataset.name, name, own.get(name), campaign, running, refused)
            _pace(row, own.get(name), paces.get((dataset.name, name)))
            rows[dataset.name].append(row)
            if row.state == SET_ASIDE:
                refused = refused or next(iter(row.errors), "an earlier stage is set aside")
        if refused:
            lost.add(dataset.name)
        if not rows[dataset.name]:
            rows[dataset.name].append(StageStatus(dataset.name, "", SET_ASIDE, errors=[refused]))
    status.stages = [row for dataset in campaign.datasets for row in rows[dataset.name]]
    status.state = RUNNING if running is not None else _overall(status.stages)
    missing = _missing_report(folder, ledger) if status.state in (DONE, SET_ASIDE) else ""
    if missing:
        status.state = STOPPED if status.state == DONE else status.state
        status.notes.append(missing)
    return status


def _missing_report(folder: Path, ledger: LedgerState) -> str:
    """What is missing of the reports of a campaign whose stages are done; empty where nothing is."""
    page = folder / REPORT
    if not page.exists():
        what = f"{page} is not written yet"
    elif ledger.pages_are_old and page.stat().st_mtime < max(
        file.path.stat().st_mtime for file in journal_files(folder)
    ):
        what = f"{page} is older than the results"
    else:
        return ""
    return f"{what}: 'cytomill report {folder}' writes the pages, and so does the same run again"


def _needs_lost(dataset: Dataset, lost: Set[str]) -> str:
    """Why a dataset cannot go on: another one, whose results it reads, is set aside."""
    missing = [name for name in PIPELINES[dataset.pipeline].depends_on(dataset.options) if name in lost]
    return f"dataset {missing[0]}, whose results it reads, is set aside" if missing else ""


def _stage_names(
    dataset: Dataset, known: Mapping[str, StageState], planned: Mapping[str, Any]
) -> Sequence[str]:
    """Stages of a dataset: those of its opened input, else those that the ledger knows."""
    order = PIPELINES[dataset.pipeline].order()
    return [name for name in order if name in known or name in planned]


def _launch(line: Mapping[str, Any]) -> Launch:
    provenance = line.get("provenance") or {}
    ranks = provenance.get("world", {}).get("ranks", [])
    hosts = sorted({rank["host"] for rank in ranks})
    return Launch(line["launch"], provenance.get("started") or "", len(ranks), hosts)


def _stage_status(
    dataset: str, name: str, known: StageState | None, campaign: Campaign, running: str | None, refused: str
) -> StageStatus:
    if known is None:
        return StageStatus(dataset, name, SET_ASIDE if refused else WAITING)
    attempts = campaign.run.attempts
    given_up = known.set_aside(attempts)
    row = StageStatus(dataset, name, WAITING, len(known.units), len(known.done), len(given_up))
    if running is not None:
        open_by = [launch for unit in known.suspects() for launch, _ in known.open[unit]]
        row.in_flight = sum(_since(running, launch) for launch in open_by)
    for unit, failures in sorted(known.failures.items()):
        if unit not in known.done:
            row.errors.append(f"unit {unit} {known.units[unit].region}: {failures[-1]}")
    if known.refused:
        row.errors.insert(0, known.refused)
    if known.complete:
        row.state = DONE
    elif known.refused or refused or given_up and not known.pending(attempts):
        row.state = SET_ASIDE
    else:
        row.state = STOPPED if running is None else RUNNING
    return row


def _since(launch: str, other: str) -> bool:
    """Whether `other` is `launch` or later; the lock may name an earlier number than the journals do."""
    return other.partition("-")[0] >= launch.partition("-")[0]


@dataclass
class _Pace:
    units: int = 0
    cost: float = 0.0
    bytes: int = 0
    first: float = float("inf")
    last: float = 0.0


def _paces(
    folder: Path, launch: str, stages: Mapping[tuple[str, str], StageState]
) -> dict[tuple[str, str], _Pace]:
    """What the present launch has done of each stage, and in which time."""
    paces: dict[tuple[str, str], _Pace] = {}
    for event in read_events(folder / TELEMETRY):
        key = (event.get("dataset", ""), event.get("stage", ""))
        if not _since(launch, event["launch"]) or key not in stages:
            continue
        pace = paces.setdefault(key, _Pace())
        pace.first = min(pace.first, event["t"])
        if event["kind"] == "unit" and event["unit"] < len(stages[key].units):
            pace.units += 1
            pace.cost += stages[key].units[event["unit"]].cost
            pace.bytes += event["bytes"]
            pace.last = max(pace.last, event["t"])
    return paces


def _pace(row: StageStatus, known: StageState | None, pace: _Pace | None) -> None:
    if row.state != RUNNING or known is None or pace is None or not pace.units or pace.last <= pace.first:
        return
    took = pace.last - pace.first
    row.bytes_per_second = pace.bytes / took if pace.bytes else None
    left = sum(unit.cost for unit in known.units if unit.index not in known.done)
    row.seconds_left = left * took / pace.cost if pace.cost else None


def _overall(stages: Sequence[StageStatus]) -> str:
    states = {stage.state for stage in stages}
    if states <= {DONE, SET_ASIDE}:
        return SET_ASIDE if SET_ASIDE in states or not states else DONE
    return WAITING if states <= {WAITING, SET_ASIDE} and not any(s.done for s in stages) else STOPPED


def render_status(status: CampaignStatus, every: bool = False) -> Group:
    """What a person sees of a status: a line, a table, the errors.

    Parameters
    ----------
    status : CampaignStatus
    every : bool
        Every stage of every dataset, however many there are.
    """
    owner = ""
    if status.owner:
        owner = f" by {status.owner}" if status.state == RUNNING else f", its last run died ({status.owner})"
    count = len(status.launches)
    head = f"{status.name}: {status.state}{owner}; {count} launch{'' if count == 1 else 'es'} so far"
    rows = [
        StatusRow(
            row.dataset,
            row.stage,
            row.state,
            row.done,
            row.units,
            row.set_aside,
            row.bytes_per_second,
            row.seconds_left,
        )
        for row in status.stages
    ]
    if not every and len({row.dataset for row in rows}) > MANY:
        rows = fold_status(rows)
    errors = dict.fromkeys(
        f"{row.dataset}, {row.stage}: {error}" if row.stage else error
        for row in status.stages
        for error in row.errors
    )
    lines = [Text(text) for text in dict.fromkeys((*errors, *status.notes))]
    return Group(Text(head), status_table(rows), *lines)
