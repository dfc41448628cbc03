"""Pages of partitioned datasets and of their campaigns: self-contained, complete, escaped, repeatable."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from cytomill.reports import partition_page
from cytomill.reports.campaign import DatasetRow
from cytomill.reports.data import SetAside
from cytomill.reports.html import render_campaign
from cytomill.reports.partition_examples import ExampleCell, encode
from cytomill.reports.partition_page import render_partition
from cytomill.reports.partitioning import PartitionReport, PartitionRow, condition_section, similarity_of

pytestmark = pytest.mark.usefixtures("small_pictures")

HOSTILE = '<script>alert("1")</script> $x_{$ [red] & "q"'


class Page(HTMLParser):
    """Tags, what they load and link to, ids, alternative texts and words."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads, self.links, self.ids, self.alts, self.text = [], [], [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.loads += [attrs[name] for name in ("src", "srcset", "data", "poster") if name in attrs]
        self.links += [attrs["href"]] if "href" in attrs else []
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.alts += [attrs.get("alt", "")] if tag == "img" else []
        assert not any(name.startswith("on") for name in attrs), f"event handler in <{tag}>"

    def handle_data(self, data):
        self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def by_condition(names=("control", "GIP"), organelle="granules", shells=8):
    """A table as the statistics of conditions make it."""
    shell = np.arange(1, shells + 1)
    frames = []
    for i, name in enumerate(names):
        g = 0.5 + shell / shells + 0.1 * i * (shell % 3)
        frames.append(
            pd.DataFrame(
                {
                    "condition": name,
                    "organelle": organelle,
                    "shell": shell,
                    "cells": 7,
                    "replicates": 2,
                    "g": g,
                    "g_low": g - 0.1,
                    "g_high": g + 0.1,
                    "g_objects": g,
                    "g_objects_low": np.nan,
                    "g_objects_high": np.nan,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


@pytest.fixture(scope="module")
def page(synthetic, small_pictures):
    return render_partition(synthetic.partition())


@pytest.fixture(scope="module")
def campaign_page(synthetic, small_pictures):
    row = PartitionRow.of(synthetic.partition(examples=[]), "datasets/beta-GIP/report.html")
    rows = synthetic.campaign().datasets + [
        row,
        DatasetRow("beta-TAK", "partitioning", verdict="tak.tif does not exist", state="set aside"),
    ]
    return render_campaign(synthetic.campaign(datasets=rows, sections=[condition_section(by_condition())]))


@pytest.mark.parametrize("name", ["page", "campaign_page"])
def test_page_loads_nothing_and_runs_nothing(name, request):
    html = request.getfixturevalue(name)
    parsed = Page(html)
    assert parsed.loads and all(uri.startswith("data:image/") for uri in parsed.loads)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    assert not any(re.match(r"[a-z]+:", link) for link in parsed.links)
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    assert all(parsed.alts) and len(set(parsed.ids)) == len(parsed.ids)


def test_dataset_page_has_every_section_and_every_cell(page):
    parsed = Page(page)
    assert set(parsed.ids) >= {"headline", "refused", "rdf", "cells", "examples", "cell-1", "cell-2"}
    assert set(parsed.ids) >= {"objects", "timings", "set-aside", "provenance"}
    alts = " | ".join(parsed.alts)
    for figure in (
        "Shells of cell 1 in planes through the nucleus",
        "cell 2 in three dimensions",
        "RDF of granules in cell 1",
        "RDF of granules in 2 cells",
        "Size of 8 shells",
        "Distances of 80 objects",
    ):
        assert figure in alts
    words = parsed.words
    assert "not a pair correlation" in words
    assert "cell 9 has no nucleus" in words and "shells are measured from their union" in words
    assert "2 nuclei, taken together" in words and "cut by the volume at z0" in words


def test_where_a_cell_is_cut_is_said_once(synthetic):
    report = synthetic.partition()
    cells = report.cells.assign(cut_faces="z0", note="cut by the volume at z0: about 14 % is no membrane")
    report.cells = cells
    words = Page(render_partition(report)).words
    assert words.count("cut by the volume at z0") == len(report.examples)
    assert "z0 about 14 % is no membrane" in words


def test_units_stand_in_headings_and_missing_numbers_are_dashes(page):
    words = Page(page).words
    for heading in ("Cytoplasm (µm³)", "Volume (µm³)", "Censored (%)", "95 % interval", "without censored"):
        assert heading in words
    assert not re.search(r"\b(nan|NaN|None)\b", words)
    numbers = words.split("Shells of cell 1 in numbers", 1)[1]
    assert re.search(r"8 0\.875–1 25.600 \S+ \S+ 0 512 – – – –", numbers)


def test_uptake_leaves_out_what_counts_nothing(page):
    uptake = Page(page).words.split("Uptake of each cell", 1)[1].split("Time and memory", 1)[0]
    assert "adsorbed" in uptake and "outside" not in uptake


def test_names_from_files_are_escaped(synthetic):
    report = synthetic.partition(
        organelles=(HOSTILE,),
        name=HOSTILE,
        condition=HOSTILE,
        notes=(HOSTILE,),
        campaign=HOSTILE,
        campaign_link="javascript:alert(1)",
        set_aside=[SetAside(HOSTILE, HOSTILE, 3, HOSTILE)],
    )
    report.cells["note"] = HOSTILE
    html = render_partition(report)
    assert "<script" not in html and HOSTILE in Page(html).words
    assert not any(link.startswith("javascript:") for link in Page(html).links)
    section = condition_section(by_condition((HOSTILE, "a", "b"), HOSTILE), HOSTILE)
    html = render_campaign(synthetic.campaign(datasets=[PartitionRow.of(report)], sections=[section]))
    assert "<script" not in html and HOSTILE in Page(html).words


def test_same_data_gives_the_same_page(synthetic, page):
    assert render_partition(synthetic.partition()) == page


def test_dataset_that_got_nowhere_says_so():
    html = render_partition(PartitionReport("empty", shape=(4, 5, 6)))
    words = Page(html).words
    assert "the dataset did not get that far" in words and "voxel size unknown" in words
    assert "No stage was timed" in words and "No provenance was recorded" in words


def test_tables_without_rows_and_organelles_draw_no_figure(synthetic):
    whole = synthetic.partition(cells=1)
    report = synthetic.partition(
        cells=1,
        rdf=whole.rdf.iloc[:0],
        profiles=whole.profiles.iloc[:0],
        objects=whole.objects.iloc[:0],
        uptake=whole.uptake.iloc[:0],
    )
    words = Page(render_partition(report)).words
    assert "No RDF: no organelle was given" in words


def test_flat_image_has_areas_one_plane_and_no_third_dimension(synthetic):
    size, shape = (300.0, 110.0, 110.0), (1, 54, 60)
    report = synthetic.partition(cells=1, shape=shape)
    report.shells = report.shells.rename(columns={"volume_um3": "area_um2"})
    report.uptake = report.uptake.rename(columns={"volume_um3": "area_um2"})
    report.cells.columns = [c.replace("volume_um3", "area_um2") for c in report.cells.columns]
    report.examples = [ExampleCell.of(1, synthetic.codes(shape, size), size)]
    parsed = Page(render_partition(report))
    assert "Cytoplasm (µm²)" in parsed.words and "µm³" not in parsed.words
    assert len(report.examples[0].planes) == 1 and "a 2-D image" in parsed.words
    assert not any("three dimensions" in alt for alt in parsed.alts)


def test_only_so_many_cells_get_figures(synthetic, monkeypatch):
    monkeypatch.setattr(partition_page, "MOST_CELLS", 1)
    parsed = Page(render_partition(synthetic.partition(cells=2)))
    assert "cell-1" in parsed.ids and "cell-2" not in parsed.ids
    assert "1 of 2 cells one by one" in parsed.words


def test_row_of_a_dataset_sums_up_its_page(synthetic):
    row = PartitionRow.of(synthetic.partition(examples=[]), "x/report.html", "incomplete")
    assert (row.cells, row.refused, row.objects, row.organelles) == (2, 1, 80, ("granules",))
    assert row.censored == pytest.approx(0.05, abs=2e-4) and row.state == "incomplete"
    assert row.method == "normalized (edt)" and row.n_shells == 8


def test_campaign_has_a_table_a_pipeline(synthetic, campaign_page):
    parsed = Page(campaign_page)
    words = parsed.words
    assert "Nanoparticles" in words and "Radial partitioning" in words
    assert "tak.tif does not exist" in words and "1 refused" in words
    assert "Clusters 2 286" in words and "Cells 2" in words
    assert "datasets/beta-GIP/report.html" in parsed.links and "HeLa-AuNP-4h/report.html" in parsed.links
    only = Page(render_campaign(synthetic.campaign())).words
    assert "Radial partitioning" not in only and "Cells" not in only
    row = PartitionRow("a", cells=3, refused=0)
    only = Page(render_campaign(synthetic.campaign(datasets=[row], set_aside=[]))).words
    assert "Particle load" not in only and "Clusters" not in only and "Cells 3 partitioned" in only


def test_section_of_conditions_shows_every_condition_and_its_likeness(campaign_page):
    parsed = Page(campaign_page)
    assert "conditions" in parsed.ids and "Pearson's r of granules in GIP and control" in parsed.words
    assert any("in 2 conditions: control, GIP" in alt for alt in parsed.alts)
    three = condition_section(by_condition(("a", "b", "c")), "tables/rdf_by_condition.parquet")
    assert sum("Similarity of 3 RDFs" in p.alt for p in three.pictures) == 1
    assert three.table.total == 24 and "tables/rdf_by_condition.parquet" in three.hint
    assert condition_section(by_condition(("",))).title == "RDF over all cells"


def test_similarity_is_symmetric_and_one_on_the_diagonal():
    matrix = similarity_of(by_condition(("a", "b", "c")), "condition")
    values = matrix.to_numpy()
    assert list(matrix.index) == ["a", "b", "c"]
    np.testing.assert_allclose(np.diag(values), 1)
    np.testing.assert_allclose(values, values.T)
    assert values[0, 1] < 0.9999


def test_codes_tell_nucleus_shells_and_cytoplasm_without_shell_apart():
    shells = np.array([[[0, 1, 2, 0, 0]]])
    nucleus = np.array([[[0, 0, 0, 1, 0]]], bool)
    cell = np.array([[[1, 1, 1, 1, 0]]], bool)
    assert encode(shells, nucleus, cell).tolist() == [[[254, 1, 2, 255, 0]]]
    with pytest.raises(ValueError, match="no voxel"):
        ExampleCell.of(1, np.zeros((3, 3, 3), np.uint8), (1.0, 1.0, 1.0))
