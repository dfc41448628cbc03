"""Entry of the `cytomill` command: signals and threads are set before anything heavy is imported."""

from __future__ import annotations

import sys

from cytomill.runtime.startup import prepare_process


def main() -> int:
    """Run the command line; returns its exit code."""
    prepare_process()
    from cytomill.cli import main as run_command

    return run_command(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
