"""What tests of the class API share."""

import pytest

from cytomill.partitioning import Partitioning


@pytest.fixture
def partitioning(tmp_path):
    return Partitioning(tmp_path / "a" / "root")
