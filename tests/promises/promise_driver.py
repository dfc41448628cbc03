"""A `cytomill` that writes down every call of a stage, and fails where a test tells it to.

Started as the command itself (``python promise_driver.py run campaign.toml``), under mpirun or alone;
the folder of the call log, the rules of failure and the lowered limits come in the variable
PROMISE_FOLDER.

A rule is a dictionary: where it applies (`what`, `stage`, `dataset`, `unit`, `rank`, `when`), which of
the events that match it is meant (`first`, counted over all ranks from 0; `times`, how many of them),
and what is done there (`do`, and for a pause `seconds`).
"""

import errno
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "PROMISE_FOLDER"
RULES = "rules.json"
LIMITS = "limits.json"
LOG = "calls.jsonl"


def own_rank() -> int:
    """Rank that the launcher gave this process; -1 in a child process of a rank."""
    return int(os.environ.get("PMI_RANK", os.environ.get("PMIX_RANK", -1)))


class Hooks:
    """The call log, and the rules.

    Parameters
    ----------
    folder : Path
        Where both lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / RULES
        self.rules = json.loads(path.read_text()) if path.exists() else []
        path = folder / LIMITS
        self.limits = json.loads(path.read_text()) if path.exists() else {}
        self.rank = own_rank()
        self.current: dict[str, Any] = {}

    def _write(self, event: dict[str, Any]) -> None:
        line = json.dumps({**event, "rank": self.rank, "pid": os.getpid(), "t": time.time()}) + "\n"
        log = os.open(self.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(log, line.encode())
        os.close(log)

    def event(self, what: str, when: str, **where: Any) -> None:
        """Write an event down, then do what the rules say of it."""
        event = {"what": what, "when": when, **where}
        self._write(event)
        found = {**event, "rank": self.rank}
        for number, rule in enumerate(self.rules):
            places = ("what", "when", "stage", "dataset", "unit", "rank", "kind")
            if all(key not in rule or rule[key] == found.get(key) for key in places):
                count = self._count(number)
                first = rule.get("first", 0)
                if first <= count < first + rule.get("times", 10**9):
                    self._do(rule, event)

    def _count(self, number: int) -> int:
        """How many events, of all ranks and launches, have met this rule before."""
        count = 0
        while True:
            try:
                os.close(os.open(self.folder / f"met-{number}-{count}", os.O_CREAT | os.O_EXCL))
                return count
            except FileExistsError:
                count += 1

    def _launcher(self) -> int:
        """The rank that waits for this child process, or the launcher's process above a rank's proxy."""
        parent = os.getppid()
        if self.rank < 0:
            return parent
        return int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])

    def _do(self, rule: dict[str, Any], event: dict[str, Any]) -> None:
        action = rule["do"]
        self._write({"what": "rule", "do": action, "at": event})
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "kill rank":  # from a child process too, where the rank waits for it
            os.kill(os.getpid() if self.rank >= 0 else self._launcher(), signal.SIGKILL)
            time.sleep(30)
        elif action == "kill launcher":
            os.kill(self._launcher(), signal.SIGKILL)
            time.sleep(30)
        elif action == "raise":
            raise RuntimeError(f"a test made {event['what']} fail")
        elif action == "not found":
            raise FileNotFoundError(errno.ENOENT, "a test took the file away", "somewhere")
        elif action == "disk full":
            raise OSError(errno.ENOSPC, "No space left on device")
        elif action == "stop":
            from cytomill.runtime.signals import request_stop

            request_stop("a test")
        elif action == "sleep":
            time.sleep(rule["seconds"])
        elif action == "delete":
            for path in Path(rule["folder"]).glob(rule["files"]):
                path.unlink()
        else:
            raise ValueError(f"no rule can {action}")


def patch(hooks: Hooks, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have `hooks` see every call of a stage and every line of a journal; `put` replaces an attribute.

    Figures take longer than all the rest of so small a campaign, so that pages hold a word only.
    """
    from cytomill.campaign import finish, partition_results, run
    from cytomill.nanoparticles import stages as nanoparticle_stages
    from cytomill.partitioning import stages as partition_stages
    from cytomill.reports import html, partitioning
    from cytomill.runtime.ledger import Journal
    from cytomill.runtime.stage import Stage

    pages = ((html, "render_dataset"), (finish, "render_campaign"), (partition_results, "render_partition"))
    for module, page in pages:
        put(module, page, lambda report: f"a page of {time.time_ns()}")
    put(partitioning, "condition_section", lambda *arguments: None)
    for name, value in hooks.limits.items():
        module, _, attribute = name.rpartition(".")
        put(importlib.import_module(module), attribute, value)
    command = run._child_command
    put(run, "_child_command", lambda *unit: [sys.executable, __file__, *command(*unit)[3:]])
    found = {**vars(nanoparticle_stages), **vars(partition_stages)}.values()
    kinds = {c for c in found if isinstance(c, type) and issubclass(c, Stage) and "name" in vars(c)}
    for kind in kinds:
        for what in ("prepare", "process", "reduce", "accept"):
            put(kind, what, _watched(hooks, what, getattr(kind, what)))
    append = Journal._append

    def watched_append(self: Journal, kind: str, **values: Any) -> None:
        where = {key: hooks.current.get(key) for key in ("dataset", "stage", "unit")}
        hooks.event("ledger", "before", kind=kind, **where)
        append(self, kind, **values)
        hooks.event("ledger", "after", kind=kind, **where)

    put(Journal, "_append", watched_append)


def _watched(hooks: Hooks, what: str, function: Callable) -> Callable:
    def watched(self: Any, *arguments: Any) -> Any:
        unit = arguments[0].index if what == "process" else None
        where = {"dataset": self.dataset, "stage": self.name, "unit": unit}
        hooks.current = where
        hooks.event(what, "before", **where)
        answer = function(self, *arguments)
        hooks.event(what, "after", **where)
        return answer

    return watched


def main() -> int:
    """The `cytomill` command, watched."""
    from cytomill.runtime.startup import prepare_process

    prepare_process()
    import cytomill.__main__

    patch(Hooks(Path(os.environ[FOLDER])))
    return cytomill.__main__.main()


if __name__ == "__main__":
    sys.exit(main())
