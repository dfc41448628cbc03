"""The table of a partition's zones, against plain NumPy."""

import numpy as np
import pytest

from cytomill.partitioning import compute_partition_features


def test_features_are_counted_zone_by_zone():
    rng = np.random.default_rng(2)
    partition = rng.integers(0, 5, (7, 8, 9))
    partition[partition == 3] = 0
    organelles = {"mito": rng.random((7, 8, 9)) < 0.4, "labels": rng.integers(0, 3, (7, 8, 9))}
    table = compute_partition_features(partition, organelles, (300, 100, 100))
    assert table["zone_id"].tolist() == [1, 2, 3, 4]
    for row in table.itertuples():
        zone = partition == row.zone_id
        assert row.zone_volume == zone.sum()
        assert np.isclose(row.zone_volume_um3, zone.sum() * 3e-3)
        assert row.mito_count == (zone & organelles["mito"]).sum()
        assert row.labels_count == (zone & (organelles["labels"] > 0)).sum()
        if zone.any():
            centre = row.zone_center_z, row.zone_center_y, row.zone_center_x
            assert np.allclose(centre, np.argwhere(zone).mean(axis=0))
            assert np.isclose(row.mito_density, row.mito_count / zone.sum())
        else:
            assert np.isnan([row.zone_center_z, row.mito_density]).all()
    unnamed = compute_partition_features(partition, list(organelles.values()))
    assert "organelle_2_count" in unnamed and "zone_volume_um3" not in unnamed
    with pytest.raises(ValueError, match="both must agree"):
        compute_partition_features(partition, np.zeros((7, 8, 8)))
