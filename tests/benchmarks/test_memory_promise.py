"""A rank's peak is what the plan says: measured <= predicted <= 1.25 measured, where units are large."""

import memory
import pytest

from cytomill.runtime.memory import LATE_BYTES

#: Slabs and units of 1.5 GB and more.
LARGE = memory.Case(
    "large units",
    (11, 8192, 8192),
    "uint16",
    chunks=(11, 1024, 1024),
    shards=(11, 8192, 4096),
    block=(11, 8192, 4096),
)
SMALL = memory.Case(
    "small units", (8, 512, 1024), chunks=(1, 512, 512), shards=(2, 512, 1024), block=(4, 512, 1024)
)


def check(peaks, stages):
    assert [peak.stage for peak in peaks] == stages
    assert all(peak.holds for peak in peaks), "\n" + memory.table(peaks)


def test_small_units_keep_the_promise(tmp_path):
    peaks = memory.run_case(SMALL, tmp_path)
    check(peaks, ["histograms", "background", "posterior", "components", "masks"])


@pytest.mark.slow
def test_units_four_times_the_imports_keep_the_promise(tmp_path):
    for case in (SMALL, LARGE):  # the first, so that kernels are compiled and the imports at their least
        folder = tmp_path / case.name
        folder.mkdir()
        peaks = memory.run_case(case, folder)
    check(peaks, ["grey levels", "histograms", "background", "posterior", "components", "masks"])
    imports = peaks[0].baseline - LATE_BYTES
    assert min(peak.unit for peak in peaks) >= 4 * imports


def test_a_promise_broken_on_either_side_is_seen():
    peak = memory.StagePeak("", "", 300, 1000, 900)
    assert peak.holds
    assert not memory.StagePeak("", "", 300, 1000, 1001).holds
    assert not memory.StagePeak("", "", 300, 1000, 799).holds
