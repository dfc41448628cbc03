"""Terminal tables and numbers for people."""

import io

import pytest

from cytomill.reports.quantities import bytes_text, count_text, figures_text, percent_text, seconds_text
from cytomill.reports.terminal import (
    PlanRow,
    StatusRow,
    fold_plan,
    fold_status,
    plan_table,
    print_renderable,
    status_table,
)


def printed(table) -> str:
    stream = io.StringIO()
    print_renderable(table, stream)
    return stream.getvalue()


def test_status_in_a_file_is_complete_and_plain():
    long_name = "a-very-long-dataset-name-" * 5
    text = printed(
        status_table(
            [
                StatusRow(long_name, "posterior", "running", 12, 64, 0, 1.1e8, 250),
                StatusRow(long_name, "labels", "waiting", 0, 48),
                StatusRow("[red]b[/red]", "labels", "set aside", 3, 48, 1),
            ]
        )
    )
    assert "\x1b" not in text and text.count(long_name) == 1
    assert "[red]b[/red]" in text and "12/64" in text and "110 MB/s" in text and "4 min 10 s" in text


def test_plan_totals_add_up_and_memory_is_a_peak():
    text = printed(
        plan_table(
            [
                PlanRow("a", "posterior", 64, 700_000_000, 10**9, 65, 10.0),
                PlanRow("a", "labels", 48, 900_000_000, 10**9, 49, 20.0, "reads 2 × the input"),
            ]
        )
    )
    total = next(line for line in text.splitlines() if line.strip().startswith("total"))
    assert [w for w in ("112", "900 MB", "2.00 GB", "114", "30.0 s") if w not in total] == []
    assert "reads 2 × the input" in text


def test_empty_tables_print():
    assert "Dataset" in printed(status_table([])) and "Dataset" in printed(plan_table([]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count_text(1234567), "1\u202f234\u202f567"),
        (count_text(None), "–"),
        (figures_text(0.00830), "0.00830"),
        (figures_text(1234.5), "1\u202f234"),
        (figures_text(9.996), "10.0"),
        (figures_text(1.5e-7), "1.50·10⁻⁷"),
        (figures_text(float("nan")), "–"),
        (figures_text(0), "0"),
        (figures_text(-2.5), "-2.50"),
        (figures_text(0.00099999), "0.00100"),
        (percent_text(0.0083), "0.830\u202f%"),
        (seconds_text(0.4), "400 ms"),
        (seconds_text(0.9999), "1.0 s"),
        (seconds_text(99.99), "1 min 40 s"),
        (seconds_text(3599.9), "1 h 00 min"),
        (seconds_text(7500), "2 h 05 min"),
        (bytes_text(512), "512 B"),
        (bytes_text(999_900), "1.00 MB"),
        (bytes_text(1.5e9), "1.50 GB"),
        (bytes_text(None), "–"),
        (bytes_text(5e16), "50\u202f000 TB"),
    ],
)
def test_numbers_for_people(text, expected):
    assert text == expected


def test_many_datasets_share_a_line_where_they_are_equally_far():
    rows = []
    for i in range(400):
        far = "done" if i < 300 else "running" if i < 399 else "set aside"
        rows.append(StatusRow(f"s{i}", "histograms", "done", 4, 4))
        rows.append(StatusRow(f"s{i}", "masks", far, 4 if far == "done" else 1, 4, int(far == "set aside")))
    folded = fold_status(rows)
    assert [(r.dataset, r.stage, r.state, r.done, r.total) for r in folded] == [
        ("300 datasets", "all 2", "done", 2400, 2400),
        ("99 datasets", "masks, 2 of 2", "running", 99, 396),
        ("s399", "masks, 2 of 2", "set aside", 1, 4),
    ]


def test_a_folded_plan_adds_up_to_the_same_totals():
    rows, kinds = [], []
    for i in range(20):
        for stage in ("components", "masks"):
            rows.append(PlanRow(f"d{i}", stage, i, 1000 * i, 10, 1, 0.5, f"reads {i} times"))
            kinds.append("nanoparticles" if i % 2 else "partitioning")
    folded = fold_plan(rows, kinds)
    assert [(r.dataset, r.stage) for r in folded] == [
        (f"10 × {kind}", stage)
        for kind in ("nanoparticles", "partitioning")
        for stage in ("components", "masks")
    ]
    assert sum(r.units for r in folded) == sum(r.units for r in rows)
    assert max(r.memory_bytes for r in folded) == 19000
    assert folded[0].note == "reads 19 times at the most"
