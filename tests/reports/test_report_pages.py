"""Pages are one self-contained file, say what is missing, escape what files brought, and repeat exactly."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cytomill.nanoparticles.model import FLAGGED, NO_PARTICLES
from cytomill.reports.campaign import DatasetRow
from cytomill.reports.data import ExampleSlice, SetAside
from cytomill.reports.html import page_link, provenance_lines, render_campaign, render_dataset, top_particles
from cytomill.reports.partitioning import PartitionRow
from cytomill.reports.preview import render_preview
from cytomill.reports.quantities import percent_text

HOSTILE = '<script>alert("1")</script> $x_{$ [red] & "q"'


class Page(HTMLParser):
    """Tags, attributes that load something, ids, alternative texts and the text between tags."""

    void = {"meta", "img", "br", "source", "link", "input", "hr"}

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads, self.links, self.ids, self.alts, self.text = [], [], [], set(), [], []
        self.open = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        if tag not in self.void:
            self.open.append(tag)
        self.loads += [attrs[name] for name in ("src", "srcset", "data", "poster") if name in attrs]
        if "href" in attrs:
            self.links.append(attrs["href"])
        if "id" in attrs:
            assert attrs["id"] not in self.ids, f"id {attrs['id']} twice"
            self.ids.add(attrs["id"])
        if tag == "img":
            self.alts.append(attrs.get("alt", ""))
        assert not any(name.startswith("on") for name in attrs), f"event handler in <{tag}>"

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())  # narrow spaces become plain ones too


@pytest.fixture(scope="module")
def dataset_html(synthetic):
    return render_dataset(synthetic.dataset(side=256))


@pytest.fixture(scope="module")
def campaign_html(synthetic):
    return render_campaign(synthetic.campaign())


@pytest.fixture(scope="module")
def preview_html(synthetic):
    return render_preview(synthetic.preview(side=384))


@pytest.mark.parametrize("page", ["dataset_html", "campaign_html", "preview_html"])
def test_page_loads_nothing_and_runs_nothing(page, request):
    html = request.getfixturevalue(page)
    parsed = Page(html)
    assert parsed.loads and all(uri.startswith("data:image/") for uri in parsed.loads)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    assert not any(re.match(r"[a-z]+:", link) for link in parsed.links)
    assert all(uri.startswith("data:") for uri in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert all(parsed.alts)


def test_dataset_page_has_every_section(dataset_html):
    parsed = Page(dataset_html)
    assert parsed.ids >= {"headline", "examples", "fit", "particles", "timings", "set-aside", "provenance"}
    words = parsed.words
    assert "1 874" in words and "The 20 largest of 1 874 clusters" in words
    assert "HeLa-AuNP-24h/tables/particles.parquet" in words
    assert "0123456789abcdef" in words and "estimator" in words
    for stage in ("slice histograms", "background", "fit", "posterior", "labels", "measurements"):
        assert stage in words
    alts = " | ".join(parsed.alts)
    for figure in (
        "Intensity histogram",
        "Posterior probability",
        "Particle share",
        "Calibration curve",
        "Size distribution",
        "Centres of clusters",
        "Busy and idle",
        "Labels outlined",
    ):
        assert figure in alts


def test_load_and_labelled_share_are_both_said(synthetic, dataset_html, campaign_html):
    share = percent_text(synthetic.dataset(side=32, examples=0).labelled_share).replace("\u202f", " ")
    words = Page(dataset_html).words
    assert "Particle load 0.790 %" in words
    assert f"Labels cover {share} of that volume" in words
    words = Page(campaign_html).words
    assert "0.790 %" in words and "0.830 %" in words


def test_truth_has_a_section_of_its_own_only_where_it_is_known(synthetic, dataset_html):
    parsed = Page(dataset_html)
    assert "truth" in parsed.ids and "Against the known truth" in parsed.words
    assert "Dice 0.953" in parsed.words and 'class="few"' in dataset_html
    unknown = Page(render_dataset(synthetic.dataset(side=32, examples=0, calibration=None)))
    assert "truth" not in unknown.ids and "known truth" not in unknown.words


def test_fit_that_did_not_converge_wears_no_green_badge(synthetic, campaign_html):
    summary = {"w_bg": 0.99, "nll": 3.8, "nit": 500, "converged": False}
    html = render_dataset(synthetic.dataset(side=32, examples=0, summary=summary))
    assert "badge good" not in html and "fit not converged" in Page(html).words
    assert "fit not converged" in Page(campaign_html).words


def test_limit_at_the_end_of_the_scale_is_not_mentioned(synthetic):
    html = render_dataset(synthetic.dataset(side=32, examples=0, th_high=256))
    words = Page(html).words.split("iterations", 1)[1].split("Grey:", 1)[0]
    assert "sampled away from those above bin 129," in words and "256" not in words


def test_bins_of_16_bit_and_of_dark_stacks_are_explained(synthetic):
    plain = Page(render_dataset(synthetic.dataset(side=32, examples=0))).words
    assert "grey levels" not in plain and "backwards" not in plain
    changes = {"dtype": "uint16", "grey_levels": (3000, 18_359), "polarity": "dark"}
    words = Page(render_dataset(synthetic.dataset(side=32, examples=0, **changes))).words
    assert "grey levels 3 000 to 18 359 of the uint16 stack" in words and "60 grey levels each" in words
    assert "darker than tissue" in words and "backwards" in words


def test_campaign_page_has_every_section(campaign_html):
    parsed = Page(campaign_html)
    assert parsed.ids >= {"headline", "datasets", "timings", "set-aside", "provenance"}
    assert "HeLa-AuNP-24h/report.html" in parsed.links
    assert "3 of 4" in parsed.words and "2 286" in parsed.words
    assert "the file is truncated" in parsed.words


@pytest.mark.parametrize("page", ["dataset", "campaign", "preview"])
def test_names_from_files_are_escaped(page, synthetic):
    aside = [SetAside(HOSTILE, HOSTILE, 3, HOSTILE, HOSTILE)]
    timings = synthetic.timings(2)[:1]
    timings[0].name = HOSTILE
    if page == "dataset":
        html = render_dataset(
            synthetic.dataset(
                depth=2,
                side=32,
                examples=1,
                name=HOSTILE,
                pipeline=HOSTILE,
                verdict=HOSTILE,
                notes=(HOSTILE,),
                provenance={HOSTILE: {"k": HOSTILE, "l": [HOSTILE]}},
                set_aside=aside,
                timings=timings,
                particles_path=HOSTILE,
                campaign=HOSTILE,
                campaign_link="javascript:alert(1)",
                dtype=HOSTILE,
            )
        )
    elif page == "campaign":
        rows = [DatasetRow(HOSTILE, HOSTILE, HOSTILE, HOSTILE, "javascript:alert(1)")]
        html = render_campaign(
            synthetic.campaign(
                name=HOSTILE,
                hosts=[HOSTILE],
                datasets=rows,
                set_aside=aside,
                timings=timings,
                state=HOSTILE,
                provenance={"a": HOSTILE},
            )
        )
    else:
        report = synthetic.preview(side=32, slices=1, campaign=HOSTILE)
        report.datasets[0].name = report.datasets[0].verdict = HOSTILE
        report.datasets[0].notes = (HOSTILE,)
        html = render_preview(report)
    parsed = Page(html)
    assert "script" not in parsed.tags and "<script" not in html
    assert HOSTILE in "".join(parsed.text)
    assert not any(link.startswith("javascript:") for link in parsed.links)


def test_same_data_give_the_same_bytes(synthetic, dataset_html, campaign_html, preview_html):
    assert render_dataset(synthetic.dataset(side=256)) == dataset_html
    assert render_campaign(synthetic.campaign()) == campaign_html
    assert render_preview(synthetic.preview(side=384)) == preview_html


def test_page_with_three_full_slices_stays_below_six_megabytes(synthetic):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2048, 2048), dtype=np.uint8)
    posterior = rng.random((2048, 2048), dtype=np.float32)
    labels = (posterior > 0.99).astype(np.int32)
    noise = [ExampleSlice(z, image, posterior, labels) for z in range(3)]
    report = synthetic.dataset(examples=0, side=32)
    report.examples = noise
    assert len(render_dataset(report).encode()) < 6_000_000


def test_stack_without_particles(synthetic):
    report = synthetic.dataset(
        side=64, examples=1, verdict=NO_PARTICLES, particles=synthetic.particles(0, 64)
    )
    parsed = Page(render_dataset(report))
    assert "No particles were labelled" in parsed.words
    assert report.labelled_share == 0.0
    assert "Size distribution" not in " ".join(parsed.alts)


def test_every_slice_set_aside(synthetic):
    report = synthetic.dataset(side=64, examples=0, verdict=FLAGGED, usable=np.zeros(64, bool))
    parsed = Page(render_dataset(report))
    assert "64 left out by the fit" in parsed.words
    assert "Nothing was fitted: all 64 slices were left out" in parsed.words
    assert "iterations" not in parsed.words and "Particle share of" not in " ".join(parsed.alts)
    assert report.labelled_share is None


def test_posterior_that_is_zero_everywhere_leaves_no_empty_figures(synthetic):
    """Of a stack without particles the images and the histogram remain; a flagged one has no load at all."""
    nothing = {
        "tables": np.zeros((64, 256), np.float32),
        "load": 0.0,
        "particles": synthetic.particles(0, 64),
    }
    none, flagged = (
        synthetic.dataset(side=64, examples=2, verdict=verdict, **nothing)
        for verdict in (NO_PARTICLES, FLAGGED)
    )
    parsed = Page(render_dataset(none))
    alts = " | ".join(parsed.alts)
    assert "Intensity histogram" in alts and alts.count("Image, slice") == 2
    assert not [a for a in ("Posterior", "Labels outlined", "Particle share") if a in alts]
    assert "gives no voxel of this stack to particles" in parsed.words
    assert DatasetRow.of(none).load == 0.0 and DatasetRow.of(flagged).load is None
    assert "Particle load – not known" in Page(render_dataset(flagged)).words


def test_labels_on_a_coarser_grid_cover_as_much(synthetic):
    fine = synthetic.dataset(side=64, examples=0)
    coarse = synthetic.dataset(side=64, examples=0, downsample=(1, 2, 2))
    assert coarse.labelled_share == pytest.approx(4 * fine.labelled_share)
    assert "labels on a grid of 50 × 20 × 20 nm" in Page(render_dataset(coarse)).words


def test_one_slice(synthetic):
    parsed = Page(render_dataset(synthetic.dataset(depth=1, side=64, examples=1)))
    assert any("Particle share of 1 slices" in alt for alt in parsed.alts)


def test_dataset_set_aside_before_the_fit(synthetic):
    empty = dict.fromkeys(
        (
            "hist_stack",
            "hist_bg",
            "p_bg",
            "p_np",
            "w_bg",
            "th_low",
            "th_high",
            "pi_map",
            "pi_ml",
            "usable",
            "slice_shift",
            "particles",
            "calibration",
            "voxel_size_nm",
        )
    )
    report = synthetic.dataset(
        **empty,
        side=32,
        examples=0,
        summary={},
        verdict="",
        notes=(),
        timings=[],
        provenance={},
        shape=(),
        set_aside=[SetAside("slice histograms", "z 0–16", 3, "the file is truncated")],
    )
    parsed = Page(render_dataset(report))
    assert parsed.ids >= {"headline", "examples", "fit", "particles", "timings", "set-aside", "provenance"}
    assert (
        "Set aside: 1 unit" in parsed.words
        and "Nothing was fitted" in parsed.words
        and "Not measured" in parsed.words
    )


def test_a_dataset_that_could_not_be_opened_says_why_without_hiding_the_others(synthetic):
    reason = "stack.tif holds 5000 bytes but page directory 2 needs 393474: it is truncated; copy it again."
    rows = [DatasetRow("good", "nanoparticles", "particles", link="datasets/good/report.html", load=0.01)]
    rows.append(DatasetRow("torn", "nanoparticles", state="set aside", reason=reason))
    rows.append(PartitionRow("cell", "set aside", reason="no mask"))
    html = render_campaign(synthetic.campaign(datasets=rows, set_aside=[]))
    parsed = Page(html)
    assert reason in parsed.words and "no mask" in parsed.words and "2 datasets of 3" in parsed.words
    assert "Nothing: every unit" not in parsed.words
    # A sentence in a badge is one long line that pushes the other columns out of the page.
    assert f'class="badge bad">{reason[:9]}' not in html


def test_reason_of_a_dataset_set_aside_midway_stands_across_the_columns(synthetic):
    sentence = "dataset half: no pixel of the stack is background"
    row = DatasetRow(
        "half", "nanoparticles", "not finished", "set aside", "datasets/half/report.html", reason=sentence
    )
    html = render_campaign(synthetic.campaign(datasets=[row], set_aside=[]))
    assert 'colspan="7">no pixel of the stack is background</td>' in html
    assert 'href="datasets/half/report.html"' in html and "not finished" not in html
    words = Page(
        render_dataset(synthetic.dataset(side=32, examples=0, refusal="no pixel is background"))
    ).words
    assert "This dataset was set aside No pixel is background." in words
    assert "No unit of work failed; the dataset was set aside" in words


def test_times_on_the_campaign_page_are_words(synthetic):
    words = Page(render_campaign(synthetic.campaign(started="2026-11-21T09:15:07+00:00"))).words
    assert "Started 21 November 2026, 09:15 UTC · page written" in words and "+00:00" not in words
    assert "Computing took" in words and "Starting up, compiling" in words


def test_units_set_aside_come_before_the_figures(synthetic):
    html = render_dataset(
        synthetic.dataset(side=32, examples=1, set_aside=[SetAside("labels", "z 0–8", 3, "disk full")])
    )
    assert html.index("disk full") < html.index('id="examples"')


def test_campaign_without_datasets_failures_or_timings(synthetic):
    html = render_campaign(synthetic.campaign(datasets=[], set_aside=[], timings=[], provenance={}, hosts=[]))
    words = Page(html).words
    assert (
        "names no datasets" in words
        and "every unit of work finished" in words
        and "No stage was timed" in words
    )


def test_row_of_a_dataset_says_what_its_page_says(synthetic):
    report = synthetic.dataset(side=32, examples=0)
    row = DatasetRow.of(report, "a/report.html")
    assert row.particles == 1874 and row.load == report.load and row.slices_set_aside == 2
    assert row.median_diameter_um == pytest.approx(report.particles["equivalent_diameter_um"].median())


def test_labelled_share_counts_only_slices_that_took_part(synthetic):
    report = synthetic.dataset(side=32, examples=0)
    expected = report.particles["voxel_count"].sum() / (62 * 2048 * 2048)
    assert report.labelled_share == pytest.approx(expected)


def test_largest_particles_come_first_and_ties_by_label(synthetic):
    table = synthetic.particles(50, 64)
    table.loc[3:6, "volume_um3"] = 1.0
    top = top_particles(table.sample(frac=1, random_state=1), rows=6)
    assert [row[0] for row in top["rows"][:4]] == ["4", "5", "6", "7"]
    assert len(top["rows"]) == 6 and top["total"] == 50
    assert top["headings"][-1] == "Principal axes (µm)"


def test_particle_table_without_physical_units(synthetic):
    table = synthetic.particles(5, 8)[["label", "voxel_count", "mean_posterior"]]
    top = top_particles(table)
    assert top["headings"] == ["Label", "Voxels", "Mean posterior"]


def test_long_lists_in_the_provenance_are_cut():
    lines = list(
        provenance_lines({"input": {"crc": list(range(1000)), "empty": [], "ok": True, "none": None}})
    )
    assert lines[0] == (0, "input", "")
    assert lines[1][2].endswith("… and 976 more") and [line[2] for line in lines[2:]] == ["–", "yes", "–"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a b/report.html", "a%20b/report.html"),
        ("javascript:x", "javascript%3Ax"),
        ("../index.html", "../index.html"),
    ],
)
def test_links_are_relative_paths(path, expected):
    assert page_link(path) == expected


def test_array_of_wrong_length_is_named(synthetic):
    with pytest.raises(ValueError, match=r"pi_map has shape \(3,\), expected \(64,\)"):
        synthetic.dataset(side=32, examples=0, pi_map=np.zeros(3))
    with pytest.raises(ValueError, match="z=4: labels has shape"):
        ExampleSlice(4, np.zeros((8, 8)), None, np.zeros((8, 9), int))
