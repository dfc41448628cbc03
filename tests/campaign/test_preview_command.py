"""A preview shows what it can, and says what it cannot."""

import numpy as np
from small_campaigns import phantom, write_campaign

from cytomill.cli import main


def test_a_dataset_that_cannot_be_shown_is_said_and_told_by_the_exit_code(tmp_path, capsys):
    np.save(tmp_path / "good.npy", phantom())
    np.save(tmp_path / "short.npy", phantom())
    with open(tmp_path / "short.npy", "r+b") as file:
        file.truncate(1000)
    campaign = write_campaign(tmp_path, [tmp_path / "good.npy", tmp_path / "short.npy"])
    assert main(["run", "--preview", "2", str(campaign.source)]) == 3
    printed = capsys.readouterr()
    assert printed.out.strip().endswith("preview.html")
    assert "dataset short is not shown: " in printed.err and "good" not in printed.err
    assert printed.err.count("dataset short") == 1


def test_a_campaign_that_is_shown_whole_ends_well(tmp_path, capsys):
    np.save(tmp_path / "good.npy", phantom())
    campaign = write_campaign(tmp_path, [tmp_path / "good.npy"])
    assert main(["run", "--preview", "2", str(campaign.source)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "compiling kernels" not in line] == []  # told where the cache is cold
