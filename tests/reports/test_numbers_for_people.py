"""Numbers, times and sentences are written for readers."""

import pytest

from cytomill.reports.html import own_words, sentence_text
from cytomill.reports.quantities import level_text, probability_text, table_seconds_text, time_text


@pytest.mark.parametrize(
    "stamp, words",
    [
        ("2026-11-21T09:15:07+00:00", "21 November 2026, 09:15 UTC"),
        ("2026-03-01T23:05:00+01:00", "1 March 2026, 23:05 UTC+01"),
        ("2026-03-01T23:05:00-03:30", "1 March 2026, 23:05 UTC-03:30"),
        ("2026-03-01T23:05:00", "1 March 2026, 23:05"),
        ("2026-03-01", "2026-03-01"),
        ("20261121", "20261121"),
        ("", ""),
        ("when the moon was full", "when the moon was full"),
    ],
)
def test_times_are_words_and_other_text_stays_as_it_is(stamp, words):
    assert time_text(stamp) == words


def test_seconds_of_a_column_have_no_more_than_hundredths():
    shown = [table_seconds_text(s) for s in (0.0, 0.002, 0.0377, 1.773, 62.24, 3601.0, None)]
    assert shown == ["0.00", "< 0.01", "0.04", "1.77", "62.2", "3\u202f601", "–"]


def test_a_probability_near_an_end_of_the_scale_is_not_rounded_to_it():
    shown = [probability_text(p) for p in (0.0, 1.9e-4, 0.142, 0.9998, 1.0)]
    assert shown == ["0.000", "< 0.001", "0.142", "> 0.999", "1.000"]


def test_whole_grey_levels_are_whole():
    assert (level_text(18.0), level_text(1), level_text(2.25)) == ("18", "1", "2.25")


def test_remarks_are_sentences():
    assert sentence_text("polarity guessed: dark ") == "Polarity guessed: dark."
    assert sentence_text("Choose one.") == "Choose one." and sentence_text("") == ""


def test_a_dataset_is_not_named_beside_its_own_name():
    assert own_words("dataset a: no pixel is background", "a") == "no pixel is background"
    assert own_words("dataset ab: torn", "a") == "dataset ab: torn"
