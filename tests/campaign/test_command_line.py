"""The command line: what is misspelt is named with what was meant, what is refused is one sentence."""

import signal

import numpy as np
import pytest
from launching import run_ranks, wait_for
from small_campaigns import small_campaign

from cytomill.cli import main


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert not printed.out
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "word", "meant"),
    [
        (["rnu", "night.toml"], "command 'rnu'", "run"),
        (["run", "night.toml", "--retyr"], "flag '--retyr'", "--retry"),
        (["convert", "a", "b", "--dtpye=uint8"], "flag '--dtpye'", "--dtype"),
        (["phantom", "nanoparticle", "out"], "specimen 'nanoparticle'", "nanoparticles"),
        (["phantom", "partitioning", "out", "--knd", "dent"], "flag '--knd'", "--kind"),
        (["nanoparticles", "--root-path=a", "--spacing-dir=b", "--raduis=2"], "flag '--raduis'", "--radius"),
    ],
)
def test_a_misspelt_command_or_flag_is_answered_by_the_nearest(arguments, word, meant, capsys):
    said = refused(arguments, capsys)
    assert word in said and f"did you mean '{meant}'?" in said
    assert "'unit'" not in said and " unit" not in said


def test_what_is_like_nothing_is_answered_by_all_there_is(capsys):
    said = refused(["xyzzy"], capsys)
    assert "did you mean" not in said and "Known: run, plan, status, report," in said


def test_an_argument_too_many_is_named(capsys):
    assert "one argument too many: 'second'" in refused(["status", "first", "second"], capsys)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "does not state its voxel size; give --voxel-size-nm Z Y X"),
        (["--grey-levels", "0", "9"], "--grey-levels LOW HIGH needs --dtype"),
        (["--voxel-size-nm", "0", "10", "10"], "is not three positive numbers"),
    ],
)
def test_a_conversion_is_refused_by_its_flags_before_any_progress(tmp_path, flags, sentence, capsys):
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), np.uint8))
    assert main(["convert", str(tmp_path / "a.npy"), str(tmp_path / "a.zarr"), *flags]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("cytomill: ") and said.count("\n") == 1


def test_the_help_of_every_flag_of_the_class_states_its_default(capsys):
    with pytest.raises(SystemExit):
        main(["nanoparticles", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for text in ("(default: 10000)", "(default: 0.5 1.5 1.5)", "(default: robust)", "nps-<timestamp>"):
        assert text in said


@pytest.mark.parametrize("arguments", [["rnu"], ["status", "nowhere"], ["--help"], ["plan", "campaign.toml"]])
def test_of_several_ranks_the_first_speaks_for_all(tmp_path, arguments):
    small_campaign(tmp_path)
    alone, ranks = (run_ranks(n, ["-m", "cytomill", *arguments], cwd=tmp_path) for n in (0, 2))
    assert ranks.returncode == alone.returncode
    for said, expected in ((ranks.stdout, alone.stdout), (ranks.stderr, alone.stderr)):
        assert len(said.splitlines()) == len(expected.splitlines())


def test_a_command_that_is_not_resumed_ends_at_the_first_interrupt(tmp_path):
    arguments = ["-m", "cytomill", "phantom", "nanoparticles", "out", "--shape", "4000", "256", "256"]
    store = tmp_path / "out" / "stack.zarr"

    def interrupt(process):
        wait_for(store.exists)
        process.send_signal(signal.SIGINT)

    ended = run_ranks(0, arguments, cwd=tmp_path, meanwhile=interrupt)
    assert ended.returncode == 130
    assert ended.stderr.splitlines()[-1] == "cytomill: interrupted" and "Traceback" not in ended.stderr
