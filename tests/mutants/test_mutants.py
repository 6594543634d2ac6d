"""The mutants are small, complete and about code only; what excuses a survivor is about one that exists."""

from tests.mutants import lua, python
from tests.mutants.equivalents import idle, known
from tests.mutants.mutant import Mutant
from tests.mutants.targets import ROOT, TARGETS, mutants_of


def afters(mutants: list[Mutant]) -> list[str]:
    """Return what stands in the place of the changed lines."""
    return [mutant.after for mutant in mutants]


def test_every_token_of_a_script_is_changed() -> None:
    """One at a time: comparisons, words, numbers, texts, conditions; and each line goes, if the rest can be loaded."""
    script = "if not (x <= 1) and y == 'a' then return x + 1 end\n"

    assert set(afters(lua.mutants("a.lua", script))) == {
        "if  (x <= 1) and y == 'a' then return x + 1 end",
        "if not (x < 1) and y == 'a' then return x + 1 end",
        "if not (x > 1) and y == 'a' then return x + 1 end",
        "if not (x <= 2) and y == 'a' then return x + 1 end",
        "if not (x <= 0) and y == 'a' then return x + 1 end",
        "if not (x <= 1) or y == 'a' then return x + 1 end",
        "if not (x <= 1) and y ~= 'a' then return x + 1 end",
        "if not (x <= 1) and y == 'd' then return x + 1 end",
        "if not (x <= 1) and y == 'a' then return x - 1 end",
        "if not (x <= 1) and y == 'a' then return x + 2 end",
        "if not (x <= 1) and y == 'a' then return x + 0 end",
        "if true then return x + 1 end",
        "if false then return x + 1 end",
        "",
    }


def test_comments_of_a_script_are_let_be() -> None:
    """Whatever they look like, and so are blank lines; what looks like one inside a text is none."""
    assert lua.mutants("a.lua", "-- x == 1\n\n--[[ not\ntrue ]]\n") == []
    assert afters(lua.mutants("a.lua", "f('--x') -- 1\n")) == ["f('--x!') -- 1", ""]


def test_every_kind_of_python_is_changed() -> None:
    """One at a time: comparisons, words, constants, conditions, answers, statements."""
    module = (
        'def f(x: int = 1) -> int:\n    """Say 1."""\n'
        "    if x is None and not x < 2:  # or 1\n        x = 3\n    return x - 4\n"
    )

    assert set(afters(python.mutants("a.py", module))) == {
        "def f(x: int = 2) -> int:",
        "def f(x: int = 0) -> int:",
        "if True:  # or 1",
        "if False:  # or 1",
        "if x is not None and not x < 2:  # or 1",
        "if x is None or not x < 2:  # or 1",
        "if x is None and (x < 2):  # or 1",
        "if x is None and not x <= 2:  # or 1",
        "if x is None and not x >= 2:  # or 1",
        "if x is None and not x < 3:  # or 1",
        "if x is None and not x < 1:  # or 1",
        "pass",
        "x = 4",
        "x = 2",
        "return None",
        "return x + 4",
        "return x - 5",
        "return x - 3",
    }


def test_declarations_are_let_be() -> None:
    """Docstrings, annotations, decorators; and a change that is none."""
    assert (
        python.mutants("a.py", '"""1."""\n@frozen(1)\nclass A:\n    """2."""\n\n    x: "int"\n')
        == []
    )
    assert "é" in python.mutants("a.py", 'x = "é" == 1\n')[0].after


def test_a_mutant_tells_its_line_and_its_whole_file() -> None:
    """For whoever looks at a survivor."""
    (mutant,) = lua.mutants("a.lua", "local x = y\n")[:1]

    assert (mutant.line, mutant.before, mutant.after, mutant.text) == (1, "local x = y", "", "")
    assert str(mutant) == "a.lua:1\n    - local x = y\n    + (deleted)"


def test_every_target_and_its_tests_exist() -> None:
    """A file that was renamed is not mutated any more, and nobody would notice."""
    for target, selections in TARGETS.items():
        assert len(mutants_of(target)) > 5
        for path in " ".join(selections).split():
            assert not path.startswith("tests/") or (ROOT / path).exists()


def test_every_excuse_is_for_a_mutant_that_exists() -> None:
    """With a reason."""
    assert idle(mutant for target in TARGETS for mutant in mutants_of(target)) == []
    assert all(entry.reason.endswith(".") for entry in known())
