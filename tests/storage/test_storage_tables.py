"""Tables come back as they were written, and the same table gives the same bytes."""

import numpy as np
import pandas as pd
import pytest

from cytomill.storage.errors import VolumeError
from cytomill.storage.tables import read_table, write_table


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "label": np.array([1, 2, 3], np.uint32),
            "volume_um3": [0.1, 1 / 3, np.nan],
            "note": ["a", "b, c", ""],
        }
    )


def test_tables_round_trip_with_metadata(tmp_path, frame):
    written = write_table(frame, tmp_path / "particles-5.9-4-4", metadata={"unit": "µm", "version": 1})
    assert [path.name for path in written] == ["particles-5.9-4-4.parquet", "particles-5.9-4-4.csv"]
    back = read_table(tmp_path / "particles-5.9-4-4")
    pd.testing.assert_frame_equal(back, frame, check_dtype=True)
    assert back.attrs == {"unit": "µm", "version": 1}
    np.testing.assert_array_equal(pd.read_csv(written[1])["volume_um3"], frame["volume_um3"])


def test_the_same_table_gives_the_same_bytes(tmp_path, frame):
    first = [path.read_bytes() for path in write_table(frame, tmp_path / "a", metadata={"b": 1, "a": 2})]
    again = frame.copy()
    again.index = [7, 8, 9]
    assert [
        path.read_bytes() for path in write_table(again, tmp_path / "a", metadata={"a": 2, "b": 1})
    ] == first


def test_csv_can_be_left_out(tmp_path, frame):
    assert len(write_table(frame, tmp_path / "a", with_csv=False)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert read_table(tmp_path / "a.parquet").attrs == {}


def test_empty_tables_keep_their_columns(tmp_path, frame):
    write_table(frame.iloc[:0], tmp_path / "a")
    assert list(read_table(tmp_path / "a").columns) == ["label", "volume_um3", "note"]


def test_missing_and_damaged_tables_get_a_sentence(tmp_path, frame):
    with pytest.raises(VolumeError, match="cannot be read"):
        read_table(tmp_path / "none")
    (path, _) = write_table(frame, tmp_path / "a")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(VolumeError, match="cannot be read"):
        read_table(tmp_path / "a")


def test_a_table_in_parts_is_read_as_one(tmp_path, frame):
    write_table(iter([frame.iloc[:1], frame.iloc[1:]]), tmp_path / "parts", metadata={"a": 1})
    write_table(frame, tmp_path / "whole", metadata={"a": 1})
    pd.testing.assert_frame_equal(read_table(tmp_path / "parts"), read_table(tmp_path / "whole"))
    assert read_table(tmp_path / "parts").attrs == {"a": 1}
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_parts_that_differ_leave_the_older_table(tmp_path, frame):
    write_table(frame, tmp_path / "a")
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    for parts in (iter([frame, frame.drop(columns="note")]), iter([])):
        with pytest.raises(ValueError):
            write_table(parts, tmp_path / "a")
        assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before
