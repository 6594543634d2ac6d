"""What exists is documented, and what is documented exists."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from reaction_tally.keys import Keys
from tests.env_example import env_example
from worker.cli.commands import app
from worker.errors import ExitCode
from worker.settings import FIELDS, SECRETS, Settings
from worker.settings.masked import as_text
from worker.store.pending_repairs import GapCause

ROOT: Final = Path(__file__).parents[1]
DOCUMENTS: Final = [
    *sorted(ROOT.glob("*.md")),
    *(
        path
        for folder in ("client", "deploy", "tests", "worker")
        for path in (ROOT / folder).rglob("*.md")
        if "node_modules" not in path.parts
    ),
]
TYPED_FROM: Final = [
    *DOCUMENTS,
    ROOT / "Dockerfile",
    *(
        path
        for path in sorted((ROOT / "deploy").rglob("*"))
        if path.is_file()
        and path.suffix in {".yaml", ".yml", ".service", ".conf", ".acl", ".example"}
    ),
    *sorted((ROOT / "client" / "examples").glob("*.sh")),
]
"""What people copy commands from."""
_CLI: Final = r"redis-(?:cli|server)\b[^\n`|]*\s"
_VARIABLE: Final = rf"(?:{'|'.join(SECRETS)})=[^\s`\"'$%]"
SECRET_ARGUMENT: Final = re.compile(
    rf"{_CLI}(?:-u|-a|--pass|--uri)\s"
    rf"|{_CLI}(?:--)?requirepass\s+\w"
    rf"|{_CLI}ACL SETUSER[^\n`|]*\s['\"]?[<>]\w"
    rf"|(?:docker|podman|kubectl|systemd-run|env)\b[^\n`]*\s{_VARIABLE}"
    r"|--from-literal=\S*(?:url|key|token)=\S"
    r"|curl\b[^\n`]*[?&]auth=[^\s`&…]"
    r"|(?:node|go run|python[\d.]*|tally)\s[^\n`]*\w+://[^\s`/@]*:[^\s`/@]+@"
)
"""A secret among the arguments of a command."""
OPERATING: Final = (
    *("install.md", "runbook.md", "situations.md", "reference.md"),
    *("personal-data.md", "words.md"),
)
"""The documents of an operator, in ``deploy/``."""
PACKAGES: Final = {
    "client": "client/reaction_tally",
    "testing": "client/reaction_tally/testing",
}
"""The parts of the map that are not in ``worker/``."""
SLIP: Final = "TALLY_CHANELS"
"""A setting that is none: a row of ``deploy/situations.md`` is about it."""
README_WORDS: Final = 900
INTERRUPTED: Final = {129, 130, 143}
"""Exit codes of a process that SIGINT or SIGTERM ended."""


def text_of(path: str) -> str:
    """Return the text of a document."""
    return (ROOT / path).read_text(encoding="utf-8")


README: Final = text_of("README.md")
REFERENCE: Final = text_of("deploy/reference.md")
MAP: Final = text_of("worker/README.md")


def section(text: str, heading: str) -> str:
    """Return the part of a document below a heading, up to the next heading that is as high."""
    level = heading.split(" ", maxsplit=1)[0]
    return text.partition(f"\n{heading}\n")[2].partition(f"\n{level} ")[0]


def names(path: Path) -> str:
    """Return the name of a test's case: the document's path."""
    return str(path.relative_to(ROOT))


# --- what exists is documented ------------------------------------------------------------------


def test_every_setting_has_a_row_with_its_default() -> None:
    """One row each, in the order of the fields. The files of secrets share the last row."""
    rows = re.findall(r"^\| `((?:PUBNUB|REDIS|TALLY)_\w+)` \|(.*?)\|", REFERENCE, re.MULTILINE)
    files = [f"{name}_FILE" for name in SECRETS]
    assert [name for name, _ in rows] == [name for name in FIELDS if name not in files]
    assert f"\n| {', '.join(f'`{name}`' for name in files)} | | " in REFERENCE

    documented = {name: default.strip().strip("`") for name, default in rows}
    for name, field in FIELDS.items():
        default = as_text(name, Settings.model_fields[field].default) or ""
        assert documented.get(name, "") == default


def test_the_example_is_made_from_the_settings() -> None:
    """Nobody edits it: ``make env-example``."""
    assert text_of("deploy/.env.example") == env_example()


def commands() -> dict[str, Any]:
    """Return every command, also those of a group: ``users export``."""
    program: Any = get_command(app)
    found: dict[str, Any] = {}
    for name, command in program.commands.items():
        members = getattr(command, "commands", {})
        found |= {f"{name} {member}": members[member] for member in members} or {name: command}
    return found


def test_the_help_explains_each_argument_and_option() -> None:
    """And it calls an argument as the reference does, in capitals."""
    for name, command in commands().items():
        assert command.help, name
        for each in command.params:
            assert each.help, (name, each.name)
            if each.param_type_name == "argument":
                assert re.fullmatch("[A-Z_]+", each.metavar), (name, each.name)
                assert re.search(rf"`tally {name}[^`]* {each.metavar}", REFERENCE), name


def test_every_command_has_a_row_with_its_options() -> None:
    """And no row names a command or an option that does not exist."""
    table = section(REFERENCE, "## Commands")
    rows = dict(re.findall(r"^\| `tally ((?:users )?\w+)[^|]*\|(.*)\|$", table, re.MULTILINE))
    for name, command in commands().items():
        options = {option for each in command.params for option in each.opts if "--" in option}
        assert set(re.findall(r"`(--[a-z-]+)", rows.pop(name))) == options, name
    assert not rows


def test_every_exit_code_has_a_row() -> None:
    """By its number; those of a signal, too."""
    rows = re.findall(r"^\| (\d+) \|", section(REFERENCE, "## Exit codes"), re.MULTILINE)
    assert set(map(int, rows)) == set(ExitCode) | INTERRUPTED


def test_every_key_has_a_row() -> None:
    """As the code spells it."""
    keys = Keys()
    spelled = {
        keys.counts("channel", "<message timetoken>"),
        keys.actions("channel", "<message timetoken>"),
        keys.removed("channel", "<message timetoken>"),
        keys.who("channel", "<message timetoken>", "<type>:<value>"),
        keys.messages("channel"),
        keys.journal("channel"),
        keys.head("channel"),
        keys.owed("channel"),
        keys.progress("channel"),
        keys.pruned("channel"),
        keys.channels,
        keys.cursor("<subscription>"),
        keys.subscriptions,
        keys.budget,
        keys.quarantine,
        keys.round,
        keys.shard_round("<shard>"),
        keys.proven,
        keys.proven_full,
        keys.hints,
        keys.probe,
        keys.forgotten,
        keys.meta,
    }
    rows = re.findall(r"^\| `(tally:[^`]+)` \|", text_of("client/CONTRACT.md"), re.MULTILINE)
    assert set(rows) == spelled


def test_every_cause_of_a_gap_has_a_row() -> None:
    """By its name."""
    table = section(MAP, "### What `owed` means")
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(GapCause)


def test_the_map_has_every_folder() -> None:
    """And no folder that does not exist."""
    folders = {path.parent.name for path in (ROOT / "worker").glob("*/__init__.py")}
    rows = re.findall(r"^\| \[?`(\w+)/`", section(MAP, "## The map"), re.MULTILINE)
    assert sorted(rows) == sorted(folders)


def test_a_list_of_modules_is_whole() -> None:
    """Where the map lists a folder's modules, it lists each of them, and no other."""
    parts = re.split(r"^### ", section(MAP, "## The map"), flags=re.MULTILINE)[1:]
    assert parts
    for part in parts:
        folder = part.split("\n")[0]
        rows = re.findall(r"^\| (`[^|]+\.py`) \|", part, re.MULTILINE)
        listed = [module for row in rows for module in re.findall(r"`(\w+\.py)`", row)]
        package = PACKAGES.get(folder, f"worker/{folder}")
        modules = {path.name for path in (ROOT / package).glob("*.py")}
        if listed:
            assert sorted(listed) == sorted(modules - {"__init__.py"}), folder


def test_every_folder_of_tests_has_one_row() -> None:
    """So that a newcomer finds what it proves, and no second text that says something else."""
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    rows = re.findall(r"^\| `(\w+)/` \|", text_of("tests/README.md"), re.MULTILINE)
    assert folders <= set(rows)
    assert len(rows) == len(set(rows))


# --- what is documented exists ------------------------------------------------------------------


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield where a document's links lead: a file or a folder, and a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            yield (path.parent / file).resolve() if file else path, anchor


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_every_link_leads_somewhere(document: Path) -> None:
    """To a file, a folder, or a heading."""
    for target, anchor in links(document):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_every_path_in_a_document_exists(document: Path) -> None:
    """Paths of tests, modules and manifests: from the project's folder, or from the document's."""
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`([\w.-]+/[\w./-]+)`", text):
        first = path.split("/")[0]
        places = [place for place in (ROOT, document.parent) if (place / first).is_dir()]
        assert not places or any((place / path).exists() for place in places), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_every_command_and_option_in_a_document_exists(document: Path) -> None:
    """Anybody can type it as it is written."""
    known = commands()
    text = document.read_text(encoding="utf-8")
    shown = re.findall(r"`tally\s+((?:users\s+)?[a-z]+)([^`]*)`", text)
    for words, arguments in shown:
        command = " ".join(words.split())
        assert command in known, command
        parameters = known[command].params
        options = {option for parameter in parameters for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", arguments)) <= options, (command, arguments)


@pytest.mark.parametrize("path", TYPED_FROM, ids=names)
def test_no_secret_stands_on_a_command_line(path: Path) -> None:
    """``ps`` shows it to everybody on the machine. A file, a pipe and REDISCLI_AUTH are hidden."""
    text = path.read_text(encoding="utf-8")
    assert not [found.group() for found in SECRET_ARGUMENT.finditer(text)]


@pytest.mark.parametrize(
    "line",
    [
        "redis-cli -u redis://:PASSWORD@host:6379 PING",
        'redis-cli -h host -u "$(cat /etc/tally/redis-url)" GET x',
        "redis-cli -h host -a PASSWORD",
        "redis-cli --pass PASSWORD",
        "redis-cli ACL SETUSER tally on '>PASSWORD' +@read",
        "redis-cli CONFIG SET requirepass PASSWORD",
        "redis-server --requirepass PASSWORD",
        "docker run -e PUBNUB_SECRET_KEY=sec-c-1 tally",
        "systemd-run -E REDIS_URL=redis://:PASSWORD@host tally run",
        "env PUBNUB_AUTH_TOKEN=p0 tally run",
        "kubectl create secret generic x --from-literal=redis-url=redis://:PASSWORD@host",
        "curl 'https://ps.pndsn.com/time/0?auth=p0'",
        "node read.cjs redis://:PASSWORD@host:6379/0",
    ],
)
def test_a_secret_on_a_command_line_is_found(line: str) -> None:
    """The test before this one knows these."""
    assert SECRET_ARGUMENT.search(line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=names)
def test_every_setting_in_a_document_exists(document: Path) -> None:
    """And none was renamed."""
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"\b(?:TALLY|PUBNUB)_[A-Z_]+\b", text)) <= {*FIELDS, SLIP}


def test_every_constant_in_the_map_exists() -> None:
    """So that a search of the code finds it."""
    paths = [*(ROOT / "worker").rglob("*.py"), *(ROOT / "client").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    for name in set(re.findall(r"`([A-Z][A-Z_]+)`", MAP)) - set(FIELDS):
        assert re.search(rf"^{name}\b.*=", code, re.MULTILINE), name


def test_every_document_is_found_from_the_readme() -> None:
    """By following links."""
    found: set[Path] = set()
    left = [ROOT / "README.md"]
    while left:
        document = left.pop()
        found.add(document)
        left += [
            target
            for target, _ in links(document)
            if target.suffix == ".md" and target not in found
        ]
    assert found == set(DOCUMENTS)


@pytest.mark.parametrize("document", OPERATING)
def test_an_operator_finds_each_document_from_the_others(document: str) -> None:
    """In the first line below the title."""
    top = text_of(f"deploy/{document}").split("\n\n")[1]
    for other in OPERATING:
        assert other == document or f"]({other})" in top


def test_the_readme_is_short() -> None:
    """As ``wc -w`` counts it."""
    assert len(README.split()) <= README_WORDS
