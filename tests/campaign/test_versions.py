"""Results of several versions in one folder are said to be that."""

import pytest

from cytomill import __version__
from cytomill.campaign.run import _replay
from cytomill.runtime.journals import next_launch
from cytomill.runtime.ledger import Journal
from cytomill.runtime.ranks import SoloWorld


@pytest.mark.parametrize("version", [__version__, "0.0.1"])
def test_another_version_in_the_folder_is_said(tmp_path, capsys, version):
    journal = Journal(tmp_path, next_launch(tmp_path, "1"), 0)
    journal.launch_line(version=version)
    journal.close()
    assert len(_replay(SoloWorld(), tmp_path).launches) == 1
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert said.count(f"were begun by cytomill 0.0.1, this is {__version__}") == (version == "0.0.1")
