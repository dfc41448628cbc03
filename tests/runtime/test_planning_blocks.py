"""Promise 7: a stage of blocks is planned for the blocks that it will run, whoever cut them."""

import numpy as np
import pytest
from small_campaigns import run_waves, small_campaign

from cytomill.campaign.opening import open_datasets
from cytomill.campaign.pipeline import Place
from cytomill.runtime.stage import Unit


@pytest.mark.parametrize("name", ["components", "masks"])
def test_memory_is_that_of_the_largest_block_of_the_table(tmp_path, name):
    campaign = small_campaign(tmp_path)
    run_waves(campaign, until="masks")
    (stages,) = open_datasets(campaign, Place(ranks=32)).stages.values()
    stage = next(stage for stage in stages if stage.name == name)
    stage.state.results["components"] = {"regions": np.array([[0, 2, 0, 64, 0, 192]])}
    small = [Unit(0, ((0, 2), (0, 64), (0, 192)), 1.0)]
    large = [Unit(0, ((0, 8), (0, 160), (0, 192)), 1.0)]
    assert stage.memory_bytes(small + large) == stage.memory_bytes(large) > 2 * stage.memory_bytes(small)
