"""The table of log events is whole: each event of the program, with its level, and no other."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

WORKER = Path(__file__).parents[2] / "worker"
REFERENCE = (WORKER.parent / "deploy/reference.md").read_text(encoding="utf-8")
TABLE = REFERENCE.partition("\n## Log events\n")[2].partition("\n## ")[0]
LEVELS = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
}
ROW = re.compile(r"^\| `([a-z_]+)` \| ([a-z, ]+) \| (.+) \|$", re.MULTILINE)


def documented() -> dict[str, set[str]]:
    """Return event → levels, as the table has them."""
    return {name: set(levels.split(", ")) for name, levels, _ in ROW.findall(TABLE)}


@cache
def calls() -> dict[Path, list[ast.Call]]:
    """Return module → all it calls."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in WORKER.rglob("*.py")}
    return {
        path: [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for path, tree in trees.items()
    }


def written() -> dict[str, set[str | None]]:
    """Return event → levels, as the program writes them; None where the level depends."""
    found: dict[str, set[str | None]] = {}
    for called in calls().values():
        for event, level in events(called):
            found.setdefault(event, set()).add(level)
    return found


def events(calls: list[ast.Call]) -> Iterator[tuple[str, str | None]]:
    """Yield each event of a module with its level; a ThrottledWarning has two."""
    for call in calls:
        texts = [
            each.value
            for each in call.args
            if isinstance(each, ast.Constant) and isinstance(each.value, str)
        ]
        match call.func:
            case ast.Attribute(value=holder, attr=method) if method in {*LEVELS, "log"} and is_log(
                holder
            ):
                assert texts or is_passed_on(call), (
                    f"an event without a name of its own: {ast.unparse(call)}"
                )
                yield from ((text, LEVELS.get(method)) for text in texts[:1])
            case ast.Name(id="ThrottledWarning"):
                failing, over = texts
                yield failing, "warning"
                yield over, "info"


def is_log(node: ast.expr) -> bool:
    """Whether this is a log: by its name, or made on the spot."""
    return ast.unparse(node) in {"log", "self._log"} or ast.unparse(node).endswith(
        "get_logger(__name__)"
    )


def is_passed_on(call: ast.Call) -> bool:
    """Whether a ThrottledWarning logs its own event."""
    return ast.unparse(call.args[0]) in {"self._event", "self._over"}


def test_every_event_is_documented_with_its_level() -> None:
    """And nothing is that the program does not write."""
    table, found = documented(), written()

    assert sorted(table) == sorted(found)
    for event, levels in found.items():
        assert levels - {None} <= table[event], event
        assert None in levels or levels == table[event], event


def test_the_table_is_in_order() -> None:
    """By name, so that an event is found, and each once, with levels that exist."""
    names = [name for name, _, _ in ROW.findall(TABLE)]

    assert names == sorted(set(names))
    assert set().union(*documented().values()) <= set(LEVELS.values())


def test_no_module_prints_past_the_log() -> None:
    """Only the demo, the log itself, and a health check that loads little."""
    writing = {
        path.name
        for path in WORKER.rglob("*.py")
        if re.search(
            r"sys\.std(out|err)\.write|(?<![\w.])print\(", path.read_text(encoding="utf-8")
        )
    }
    assert writing <= {"logs.py", "screen.py", "quick_healthcheck.py"}
