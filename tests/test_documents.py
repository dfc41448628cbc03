"""The documents say what the program does: commands, exit codes, links, snippets, columns, messages."""

import argparse
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cytomill.campaign.config import load_campaign
from cytomill.cli import build_parser
from cytomill.nanoparticles import robust_verdict as robust
from cytomill.nanoparticles.label_stages import SLICE_METADATA
from cytomill.nanoparticles.measurements import COLUMN_METADATA
from cytomill.phantoms.nanoparticles import make_volume
from cytomill.runtime.failures import ExitCode
from cytomill.storage.convert import convert

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
BY_NAME = {path.name: path for path in DOCUMENTS}

#: Flags of other programs that the documents name.
FOREIGN_FLAGS = {
    "--kill-on-bad-exit",
    *("--mpi", "--nodes", "--ntasks-per-node", "--cpus-per-task", "--mem", "--time", "--signal", "--requeue"),
    *("--open-mode", "--job-name", "--kill-on-invalid-dep", "--gpus-per-task"),
    *("--force-reinstall", "--no-cache-dir", "--no-binary"),
}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.name)
def document(request):
    return request.param.read_text(encoding="utf-8")


def blocks(text, language):
    """Fenced blocks of a language; the empty language is that of plain blocks."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


def subcommands():
    """Parser of every subcommand that the help shows."""
    action = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {shown.dest: action.choices[shown.dest] for shown in action._choices_actions}


def flags_of(parser):
    own = {flag for action in parser._actions for flag in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            own |= {flag for choice in action.choices.values() for flag in flags_of(choice)}
    return own


def command_lines(text):
    """Arguments of every `cytomill` command in the shell blocks."""
    for block in blocks(text, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if "cytomill" in words and words[0] != "cd":
                arguments = words[words.index("cytomill") + 1 :]
                yield arguments[: arguments.index("&")] if "&" in arguments else arguments


def test_every_command_line_is_understood(document):
    for arguments in command_lines(document):
        try:
            build_parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"the parser refuses: cytomill {' '.join(arguments)}")


def test_the_readme_shows_commands_at_all():
    assert {arguments[0] for arguments in command_lines(README.read_text(encoding="utf-8"))} >= {
        *("plan", "run", "status", "verify", "report", "doctor")
    }


def test_every_flag_exists(document):
    known = flags_of(build_parser()) | FOREIGN_FLAGS
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", document)) <= known


def test_every_flag_belongs_to_the_subcommand_beside_it(document):
    known = subcommands()
    for command in re.findall(r"`cytomill ([^`]+)`", document):
        name = command.split()[0]
        assert name in known, command
        assert set(re.findall(r"(?<!\S)--[a-z-]+", command)) <= flags_of(known[name]), command


def test_every_subcommand_is_in_the_documents():
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    assert {name for name in subcommands() if f"cytomill {name}" not in text} == set()


def test_the_table_of_exit_codes_is_the_programs():
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| .+ \|$", text, flags=re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(code.value, code.name) for code in ExitCode]


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_resolves(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, section = target.partition("#")
        linked = path.parent / name if name else path
        assert linked.exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert section in map(anchor, headings), target


def test_every_document_is_reached_from_the_readme():
    seen, waiting = set(), [README]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in re.findall(r"\]\(([\w./-]+\.md)[#)]", path.read_text(encoding="utf-8")):
            linked = (path.parent / name).resolve()
            waiting += [linked] if linked not in seen else []
    assert set(DOCUMENTS) <= seen


def test_every_campaign_file_loads(tmp_path):
    found = 0
    for number, text in enumerate(b for path in DOCUMENTS for b in blocks(path.read_text("utf-8"), "toml")):
        folder = tmp_path / str(number)
        for table in tomllib.loads(text).get("dataset", ()):
            given = folder / table["input"].replace("*", "plate-1")
            given.parent.mkdir(parents=True, exist_ok=True)
            given.touch()
        (folder / "campaign.toml").write_text(text, encoding="utf-8")
        assert load_campaign(folder / "campaign.toml").datasets
        found += 1
    assert found >= 2


@pytest.fixture(scope="session")
def finished_campaign(tmp_path_factory):
    """The README's campaign, run on a small phantom, beside a store for its class API."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "data").mkdir()
    tifffile.imwrite(folder / "data" / "plate-1.tif", make_volume((8, 160, 192), seed=3, load=0.03)[0])
    convert(folder / "data" / "plate-1.tif", folder / "stack.zarr", voxel_size_nm=(50, 10, 10))
    (campaign,) = blocks(README.read_text(encoding="utf-8"), "toml")
    (folder / "fibroblasts.toml").write_text(campaign, encoding="utf-8")
    command = [sys.executable, "-m", "cytomill", "run", "fibroblasts.toml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == ExitCode.FINISHED, done.stderr
    return folder


@pytest.mark.parametrize("name", ["README.md", "formats.md"])
def test_the_python_snippets_run(name, finished_campaign, monkeypatch, capsys):
    monkeypatch.chdir(finished_campaign)
    snippets = blocks(BY_NAME[name].read_text(encoding="utf-8"), "python")
    assert len(snippets) == 2
    for snippet in snippets:
        variables = {}
        exec(compile(snippet, name, "exec"), variables)
        if "count" in variables:
            assert variables["count"] > 0
            labels = variables["segmentation"].load("model").mixture
            assert np.array_equal(labels.p_np, variables["segmentation"].p_np)
    assert capsys.readouterr().out


def test_the_tree_of_results_is_what_a_run_leaves(finished_campaign):
    (tree,) = [b for b in blocks(README.read_text(encoding="utf-8"), "") if "├──" in b]
    at, shown = [], []
    for line in tree.splitlines():
        mark, name = re.match(r"([│├└─ ]*)(\S+)", line).groups()
        at[len(mark) // 4 :] = [name.strip("/").replace("<name>", "plate-1")]
        shown.append("/".join(at))
    missing = {path for path in shown if not (finished_campaign / path).exists()}
    assert missing == {"fibroblasts-results/preview.html"}
    folder = finished_campaign / "fibroblasts-results"
    first_level = {path.removeprefix("fibroblasts-results/").split("/")[0] for path in shown}
    assert {path.name for path in folder.iterdir()} <= first_level


def columns_under(heading, text):
    part = text.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0]
    return [name for row in part.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_the_columns_of_the_tables_are_all_explained():
    text = BY_NAME["nanoparticles.md"].read_text(encoding="utf-8")
    assert sorted(columns_under("`tables/particles.csv`", text)) == sorted(COLUMN_METADATA)
    assert sorted(columns_under("`tables/slices.csv`", text)) == sorted(SLICE_METADATA)


def test_the_limits_of_the_verdicts_are_the_estimators():
    text = BY_NAME["nanoparticles.md"].read_text(encoding="utf-8")
    assert f"at least {robust.FEWEST_VOXELS} voxels and {100 * robust.SMALLEST_SHARE:g} %" in text
    assert f"more\nthan {100 * robust.LARGEST_SHARE:g} % of the voxels" in text
    for verdict in (robust.PARTICLES, robust.NO_PARTICLES, robust.FLAGGED):
        assert f"| `{verdict}` |" in text


def test_the_messages_explained_are_those_of_the_program():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    table = BY_NAME["running.md"].read_text(encoding="utf-8").partition("| message |")[2]
    messages = [row.split("|")[1] for row in table.splitlines()[2:] if row.startswith("|")]
    assert len(messages) >= 10
    for message in messages:
        words = message.strip(" `").split()
        runs = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
        assert any(run in source for run in runs), message
