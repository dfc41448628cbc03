"""A campaign file is read exactly, or refused in one sentence that says what to do."""

import json
from dataclasses import asdict, dataclass, fields

import pytest

from cytomill.campaign.config import (
    DEFAULT_PIPELINES,
    FILLED_BY_THE_RUN,
    CampaignError,
    from_resolved,
    load_campaign,
    resolved,
)
from cytomill.campaign.settings import RunSettings, kinds_of
from cytomill.nanoparticles.config import NanoparticleSegConfig

#: For each option a value beside its default, as TOML and as the dataclass holds it.
VALUES = {
    "verbose": ("true", True),
    "max_iter": ("500", 500),
    "eps": ("1e-9", 1e-9),
    "nll_tol": ("1e-8", 1e-8),
    "sampling_step": ("2", 2),
    "percent_th_low": ("98", 98.0),
    "percent_th_high": ("99.9", 99.9),
    "halo_pad": ("10", 10),
    "min_size": ("30", 30),
    "posterior_th": ("0.75", 0.75),
    "beta_params": ("[2, 10.5]", (2.0, 10.5)),
    "zarr_chunks": ("[1, 512, 512]", (1, 512, 512)),
    "model_name": ('"nps-mine"', "nps-mine"),
    "estimator": ('"reference"', "reference"),
    "pi_solver": ('"bounded"', "bounded"),
    "posterior_dtype": ('"uint8"', "uint8"),
    "polarity": ('"dark"', "dark"),
    "radius": ("2", 2),
    "closing_nm": ("40", 40.0),
    "connectivity": ("3", 3),
    "min_particle_size": ("5", 5),
    "border": ('"zero"', "zero"),
    "downsample": ("[1, 2, 2]", (1, 2, 2)),
    "downsample_sigma": ("[0.5, 1, 1]", (0.5, 1.0, 1.0)),
    "shard_shape": ("[4, 1024, 1024]", (4, 1024, 1024)),
}
RUN_VALUES = {
    "max_failures": ("0", 0),
    "attempts": ("5", 5),
    "sharing": ('"static"', "static"),
    "device": ('"cpu"', "cpu"),
    "memory_per_rank_gb": ("8", 8.0),
    "slices_per_unit": ("16", 16),
    "block": ("[16, 256, 256]", (16, 256, 256)),
}
OPTIONS = [f.name for f in fields(NanoparticleSegConfig) if f.name not in FILLED_BY_THE_RUN]

DATASET = '[[dataset]]\ninput = "data/stack-a.mrc"\n'


@dataclass
class OtherConfig:
    """Another pipeline, to check that pipelines can join."""

    depth: int = 3


@pytest.fixture
def write(tmp_path):
    """Write a campaign file beside data/stack-a.mrc and data/stack-b.mrc."""
    (tmp_path / "data").mkdir()
    for name in ("stack-a.mrc", "stack-b.mrc"):
        (tmp_path / "data" / name).touch()

    def write(text, name="night.toml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def refusal(path, *overrides, **how):
    with pytest.raises(CampaignError) as caught:
        load_campaign(path, overrides, **how)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_shortest_campaign_gets_every_default(write, tmp_path):
    campaign = load_campaign(write(DATASET))
    assert campaign.name == "night"
    assert campaign.output == tmp_path / "night-results"
    assert campaign.source == tmp_path / "night.toml"
    assert campaign.run == RunSettings()
    (dataset,) = campaign.datasets
    assert (dataset.name, dataset.pipeline) == ("stack-a", "nanoparticles")
    assert dataset.input == str(tmp_path / "data/stack-a.mrc")
    assert dataset.voxel_size_nm is None
    plain = asdict(NanoparticleSegConfig(root_path="", spacing_dir="", model_name="m"))
    assert asdict(dataset.options) | {"model_name": "m"} == plain
    assert campaign.warnings == ()


def test_a_dataset_overrides_its_pipelines_defaults_and_only_for_itself(write):
    campaign = load_campaign(
        write(
            '[nanoparticles]\nhalo_pad = 7\nestimator = "reference"\n'
            + DATASET
            + '[dataset.nanoparticles]\nestimator = "robust"\n'
            + '[[dataset]]\ninput = "data/stack-b.mrc"\nvoxel_size_nm = [50, 10, 10]\n'
        )
    )
    a, b = campaign.datasets
    assert (a.options.halo_pad, a.options.estimator, a.options.posterior_th) == (7, "robust", 0.5)
    assert (b.options.halo_pad, b.options.estimator, b.options.posterior_th) == (7, "reference", 0.95)
    assert b.voxel_size_nm == (50.0, 10.0, 10.0)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_accepted_from_toml_from_a_dataset_and_from_set(write, name):
    text, expected = VALUES[name]
    in_pipeline = load_campaign(write(f"[nanoparticles]\n{name} = {text}\n{DATASET}"))
    in_dataset = load_campaign(write(f"{DATASET}[dataset.nanoparticles]\n{name} = {text}\n"))
    by_set = load_campaign(write(DATASET), [f"nanoparticles.{name}={text}"])
    by_dataset_set = load_campaign(write(DATASET), [f"dataset.stack-a.nanoparticles.{name}={text}"])
    for campaign in (in_pipeline, in_dataset, by_set, by_dataset_set):
        value = getattr(campaign.datasets[0].options, name)
        assert value == expected
        assert type(value) is type(expected)


@pytest.mark.parametrize("name", [f.name for f in fields(RunSettings)])
def test_every_run_setting_is_accepted_from_toml_and_from_set(write, name):
    text, expected = RUN_VALUES[name]
    for campaign in (
        load_campaign(write(f"[run]\n{name} = {text}\n{DATASET}")),
        load_campaign(write(DATASET), [f"run.{name}={text}"]),
    ):
        assert getattr(campaign.run, name) == expected


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        (f"[campaign]\noutptu = 'x'\n{DATASET}", "outptu", "'output'"),
        (f"[run]\nmax_failure = 1\n{DATASET}", "max_failure", "'max_failures'"),
        (f"[nanoparticles]\nhalo-pad = 1\n{DATASET}", "halo-pad", "'halo_pad'"),
        (f"{DATASET}voxel_size = [1, 1, 1]\n", "voxel_size", "'voxel_size_nm'"),
        (f"{DATASET}[dataset.nanoparticles]\nEstimator = 'robust'\n", "Estimator", "'estimator'"),
        (f"{DATASET}[dataset.nanoparticle]\nradius = 1\n", "nanoparticle", "'nanoparticles'"),
        (f"[nanoparticle]\nradius = 1\n{DATASET}", "nanoparticle", "'nanoparticles'"),
    ],
)
def test_a_misspelt_key_is_refused_with_file_section_and_nearest_key(write, text, key, meant):
    message = refusal(write(text))
    assert "night.toml" in message
    assert f"unknown key '{key}'; did you mean {meant}?" in message
    assert "Allowed: " in message
    assert meant.strip("'") in message.partition("Allowed: ")[2]


@pytest.mark.parametrize(
    ("text", "home"),
    [
        (f"estimator = 'robust'\n{DATASET}", "[nanoparticles]"),
        (f"{DATASET}estimator = 'robust'\n", "[dataset.nanoparticles]"),
        (f"[nanoparticles]\nmax_failures = 1\n{DATASET}", "[run]"),
        (f"name = 'x'\n{DATASET}", "[campaign] or [[dataset]]"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(write, text, home):
    assert f"it belongs in {home}." in refusal(write(text))


@pytest.mark.parametrize("key", FILLED_BY_THE_RUN)
def test_what_the_run_fills_in_cannot_be_given(write, key):
    assert "the run fills it in" in refusal(write(f"[nanoparticles]\n{key} = 'x'\n{DATASET}"))
    assert "unknown key" in refusal(write(DATASET), f"nanoparticles.{key}=x")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("halo_pad = 'many'", "halo_pad: expected an integer, found the text 'many'"),
        ("halo_pad = 2.0", "halo_pad: expected an integer, found the number 2.0"),
        ("halo_pad = true", "halo_pad: expected an integer, found true"),
        ("eps = true", "eps: expected a number, found true"),
        ("eps = nan", "eps: expected a number, found the number nan"),
        ("eps = inf", "eps: expected a number, found the number inf"),
        ("verbose = 1", "verbose: expected true or false, found the number 1"),
        ("model_name = 3", "model_name: expected a text in quotes, found the number 3"),
        ("model_name = 2024-01-02", "model_name: expected a text in quotes, found the date 2024-01-02"),
        ("beta_params = 1", "beta_params: expected 2 numbers in [ ], found the number 1"),
        ("beta_params = [1, 2, 3]", "beta_params: expected 2 numbers in [ ], found [1, 2, 3]"),
        ("zarr_chunks = [1, 2, 'x']", "zarr_chunks: expected 3 integers in [ ], found [1, 2, 'x']"),
        ("posterior_th = {a = 1}", "posterior_th: expected a number, found a section with keys"),
        ("estimator = 'robus'", "'robust', 'reference', found the text 'robus'; did you mean 'robust'?"),
        ("connectivity = 6", "connectivity: expected one of 1, 2, 3, found the number 6"),
    ],
)
def test_a_value_of_another_type_is_named_with_the_type_expected(write, line, expected):
    message = refusal(write(f"[nanoparticles]\n{line}\n{DATASET}"))
    assert "night.toml, [nanoparticles] " in message
    assert expected in message


def test_an_integer_does_where_a_number_is_meant(write):
    (dataset,) = load_campaign(write(f"[nanoparticles]\npercent_th_low = 99\n{DATASET}")).datasets
    assert type(dataset.options.percent_th_low) is float


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("attempts = 0", "attempts is 0, expected 1 or more"),
        ("max_failures = -2", "max_failures is -2, expected -1 or more"),
        ("memory_per_rank_gb = -2", "memory_per_rank_gb is -2.0, expected 0 or more"),
        ("block = [0, 4, 4]", "block is [0, 4, 4], expected three lengths above 0, or three zeros"),
        ("sharing = 'master'", "expected one of 'auto', 'counter', 'static'"),
    ],
)
def test_a_run_setting_out_of_range_is_refused(write, line, found):
    message = refusal(write(f"[run]\n{line}\n{DATASET}"))
    assert "[run]" in message
    assert found in message


def test_what_a_pipelines_dataclass_refuses_names_file_and_dataset(write):
    @dataclass
    class Picky:
        depth: int = 3

        def __post_init__(self):
            if self.depth > 5:
                raise ValueError(f"depth is {self.depth}, expected 5 at the most")

    path = write(f"{DATASET}[dataset.picky]\ndepth = 6\n")
    message = refusal(path, pipelines={"picky": Picky})
    assert message == f"{path}, dataset 'stack-a', picky: depth is 6, expected 5 at the most"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "there is no dataset"),
        ("dataset = []\n", "there is no dataset"),
        ("[dataset.stack-a]\ninput = 'x'\n", "datasets are written [[dataset]]"),
        (f"run = 3\n{DATASET}", "'run' is a section"),
        ("[[nanoparticles]]\nradius = 1\n" + DATASET, "'nanoparticles' is a section"),
        (f"{DATASET}nanoparticles = 3\n", "[dataset.nanoparticles]: expected a section with keys, found"),
        ("[campaign\n", "not valid TOML"),
        ("[campaign]\noutput = ''\n" + DATASET, "output is empty"),
        ("[campaign]\nname = 'a/b'\n" + DATASET, "cannot name a folder"),
        (f"{DATASET}pipeline = 'nanoparticle'\n", "did you mean 'nanoparticles'?"),
        (f"{DATASET}voxel_size_nm = [0, 1, 1]\n", "voxel_size_nm is [0.0, 1.0, 1.0], expected three lengths"),
        (f"{DATASET}voxel_size_nm = 10\n", "expected 3 numbers in [ ], found the number 10"),
    ],
)
def test_a_file_of_another_shape_is_refused(write, text, found):
    message = refusal(write(text))
    assert "night.toml" in message
    assert found in message


def test_an_absent_or_unreadable_file_is_refused(write, tmp_path):
    assert "no such campaign file" in refusal(tmp_path / "none.toml")
    assert "cannot be read" in refusal(tmp_path)
    (tmp_path / "latin.toml").write_bytes("[campaign]\nname = 'Zürich'\n".encode("latin-1"))
    assert "expected TOML in UTF-8" in refusal(tmp_path / "latin.toml")


def test_a_byte_order_mark_is_no_error(write):
    assert load_campaign(write("\ufeff" + DATASET)).name == "night"


def test_set_overrides_campaign_run_and_datasets_and_the_last_one_wins(write, tmp_path):
    campaign = load_campaign(
        write(f"[run]\nmax_failures = 9\n{DATASET}[dataset.nanoparticles]\nradius = 3\n"),
        [
            "run.max_failures=1",
            "run.max_failures=0",
            "campaign.output=elsewhere",
            "campaign.name=2024",
            "dataset.stack-a.nanoparticles.estimator=reference",
            "dataset.stack-a.voxel_size_nm=[50, 10, 10]",
            "dataset.stack-a.input=data/stack-b.mrc",
            "nanoparticles.radius=2",
        ],
    )
    assert campaign.run.max_failures == 0
    assert (campaign.name, campaign.output) == ("2024", tmp_path / "elsewhere")
    (dataset,) = campaign.datasets
    assert dataset.name == "stack-a"
    assert dataset.input == str(tmp_path / "data/stack-b.mrc")
    assert dataset.voxel_size_nm == (50.0, 10.0, 10.0)
    assert dataset.options.estimator == "reference"
    assert dataset.options.radius == 3, "a dataset's own value goes before its pipeline's default"


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("nanoparticles.halo_pda=1", "did you mean 'nanoparticles.halo_pad'?"),
        ("halo_pad.x=1", "unknown key 'halo_pad.x'"),
        ("nanoparticle.halo_pad=1", "did you mean 'nanoparticles.halo_pad'?"),
        ("campaign.max_failures=1", "did you mean 'run.max_failures'?"),
        ("dataset.stack-c.name=x", "did you mean 'stack-a'?"),
        ("dataset.name=x", "with one of the names stack-a"),
        ("dataset.stack-a.nanoparticles.radios=1", "did you mean 'nanoparticles.radius'?"),
        ("dataset.stack-a.radius=1", "did you mean 'nanoparticles.radius'?"),
        ("max_failures=1", "did you mean 'run.max_failures'?"),
        ("dataset=1", "with one of the names stack-a"),
        ("run.max_failures", "expected section.key=value"),
        ("run.max_failures=few", "expected an integer, found the text 'few'"),
        ("run.max_failures=1\nattempts = 2", "expected an integer, found the text"),
        ("campaign.output=", "output is empty"),
    ],
)
def test_a_misspelt_override_is_refused_with_what_was_meant(write, argument, found):
    with pytest.raises(CampaignError) as caught:
        load_campaign(write(DATASET), [argument])
    assert found in str(caught.value)


def test_an_override_reaches_a_dataset_whose_name_has_dots(write):
    text = DATASET + 'name = "a.b"\n[[dataset]]\nname = "a"\ninput = "data/stack-b.mrc"\n'
    campaign = load_campaign(write(text), ["dataset.a.b.nanoparticles.radius=4"])
    assert [dataset.options.radius for dataset in campaign.datasets] == [4, 1]


def test_another_pipeline_can_join(write):
    both = {**DEFAULT_PIPELINES, "other": OtherConfig}
    path = write(f"[nanoparticles]\nradius = 1\n{DATASET}pipeline = 'other'\n[dataset.other]\ndepth = 4\n")
    campaign = load_campaign(path, pipelines=both)
    assert campaign.datasets[0].options == OtherConfig(depth=4)
    assert campaign.warnings == (f"{path}: [nanoparticles] is not used, no dataset has that pipeline",)
    assert from_resolved(resolved(campaign), both) == campaign
    assert load_campaign(write(DATASET), pipelines=both).datasets[0].pipeline == "nanoparticles"
    implied = load_campaign(write(f"{DATASET}[dataset.other]\ndepth = 4\n"), pipelines=both)
    assert implied.datasets[0].pipeline == "other"
    unsaid = write(f"[nanoparticles]\nradius = 1\n[other]\ndepth = 4\n{DATASET}")
    assert "the key 'pipeline' is needed" in refusal(unsaid, pipelines=both)
    two = write(f"{DATASET}pipeline = 'other'\n[dataset.nanoparticles]\nradius = 1\n")
    assert "its pipeline is 'other'" in refusal(two, pipelines=both)


def test_a_stored_campaign_comes_back_equal_in_every_field(write):
    options = "\n".join(f"{name} = {VALUES[name][0]}" for name in OPTIONS if name != "closing_nm")
    settings = "\n".join(f"{name} = {text}" for name, (text, _) in RUN_VALUES.items())
    campaign = load_campaign(
        write(
            f"[run]\n{settings}\n[nanoparticles]\n{options}\n{DATASET}voxel_size_nm = [0.1, 1e-3, 3]\n"
            '[[dataset]]\ninput = "data/stack-b.mrc::/raw"\n'
        )
    )
    stored = resolved(campaign)
    text = json.dumps(stored, allow_nan=False)
    assert json.loads(text) == stored
    assert from_resolved(json.loads(text)) == campaign
    assert resolved(from_resolved(json.loads(text))) == stored


def test_a_name_with_a_time_in_it_is_resolved_once(write):
    stored = resolved(load_campaign(write(DATASET)))
    options = stored["datasets"][0]["options"]
    assert options["model_name"].startswith("nps-")
    options["model_name"] = "nps-20200101-000000"
    assert from_resolved(stored).datasets[0].options.model_name == "nps-20200101-000000"


def test_a_stored_campaign_is_read_without_its_inputs(write, tmp_path):
    campaign = load_campaign(write(DATASET))
    (tmp_path / "data/stack-a.mrc").unlink()
    assert from_resolved(resolved(campaign)) == campaign


def test_a_damaged_stored_campaign_is_refused(write):
    stored = resolved(load_campaign(write(DATASET)))
    broken = [
        [],
        {**stored, "format": 99},
        {key: value for key, value in stored.items() if key != "output"},
        {**stored, "output": None},
        {**stored, "datasets": 3},
        {**stored, "run": {**stored["run"], "atempts": 1}},
        {**stored, "datasets": [{**stored["datasets"][0], "pipeline": "other"}]},
        {**stored, "datasets": [{**stored["datasets"][0], "options": {"halo_pad": "x"}}]},
    ]
    for damaged in broken:
        with pytest.raises(CampaignError, match="the stored campaign"):
            from_resolved(damaged)


def test_a_dataclass_that_toml_cannot_fill_is_a_programming_error():
    @dataclass
    class Odd:
        where: dict = None

    with pytest.raises(TypeError, match=r"Odd\.where"):
        kinds_of(Odd)
