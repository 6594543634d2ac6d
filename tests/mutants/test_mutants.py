"""The mutants are small, complete and about code; each excuse is about a mutant that exists."""

from tests.mutants.mutator import mutants
from tests.mutants.targets import ROOT, TARGETS, equivalents, mutants_of


def afters(target: str, source: str) -> set[str]:
    """Return the changed lines."""
    return {mutant.after for mutant in mutants(target, source)}


def test_every_token_of_a_script_is_changed() -> None:
    """Comparisons, words, numbers, texts, conditions, and each line, one at a time."""
    assert afters("a.lua", "if not (x <= 1) and y == 'a' then return x + 1 end\n") == {
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


def test_every_token_of_a_function_is_changed() -> None:
    """Comparisons, words, constants, conditions and statements, one at a time."""
    function = (
        "def f(x):\n    if x is None and not x < 2:  # or 1\n        x = 3\n    return x - 4\n"
    )

    assert afters("a.py", function) == {
        "if True:  # or 1",
        "if False:  # or 1",
        "if x is not None and not x < 2:  # or 1",
        "if x is None or not x < 2:  # or 1",
        "if x is None and  x < 2:  # or 1",
        "if x is None and not x <= 2:  # or 1",
        "if x is None and not x >= 2:  # or 1",
        "if x is None and not x < 3:  # or 1",
        "if x is None and not x < 1:  # or 1",
        "pass",
        "x = 4",
        "x = 2",
        "return x + 4",
        "return x - 5",
        "return x - 3",
    }


def test_comments_and_declarations_stay() -> None:
    """Comments, docstrings, decorators, heads of classes and functions, and fields."""
    declared = '"""1."""\n@frozen(1)\nclass A(B[1]):\n    """2."""\n\n    x: "int"\n'

    assert afters("a.lua", "-- x == 1\n\n--[[ not\ntrue ]]\n") == set()
    assert afters("a.lua", "f('--x') -- 1\n") == {"f('--x!') -- 1", ""}
    assert afters("a.py", declared) == {'x: "int!"'}


def test_a_mutant_is_a_whole_file() -> None:
    """With the line and the change, for whoever looks at a survivor."""
    mutant = mutants("a.lua", "-- a comment\nlocal x = y\n")[0]

    assert (mutant.line, mutant.text) == (2, "-- a comment\n")
    assert str(mutant) == "a.lua:2\n    - local x = y\n    + (deleted)"


def test_every_target_and_its_tests_exist() -> None:
    """A file that was renamed is not mutated any more, and nobody would notice."""
    for target, selections in TARGETS.items():
        assert len(mutants_of(target)) > 5
        for path in " ".join(selections).split():
            assert not path.startswith("tests/") or (ROOT / path).exists()


def test_every_excuse_is_about_a_mutant() -> None:
    """With a reason."""
    for entry in equivalents():
        assert any(map(entry.explains, mutants_of(entry.target))), entry
        assert entry.reason.endswith(".")
