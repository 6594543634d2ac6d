"""The pictures of the documents can be drawn anew, and are small."""

import re
import shutil
from pathlib import Path

import pytest

from tests.pictures.__main__ import FOLDER, MOST_BYTES, PICTURES, SCREENS
from tests.pictures.browser import BROWSERS

PNG = b"\x89PNG\r\n"
ROOT = FOLDER.parents[1]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_shown(name: str) -> None:
    """A document shows it, and nobody waits for it."""
    picture = (FOLDER / f"{name}.png").read_bytes()
    documents = [*ROOT.glob("*.md"), *ROOT.glob("*/*.md")]
    shown = "".join(path.read_text("utf-8") for path in documents)

    assert picture.startswith(PNG)
    assert len(picture) <= MOST_BYTES
    assert re.search(rf"!\[[^\]]+\]\((deploy/|\.\./deploy/)?pictures/{name}\.png\)", shown)


def test_no_picture_is_left_over() -> None:
    """Each one is drawn by ``make pictures``."""
    assert {path.stem for path in FOLDER.iterdir()} == set(PICTURES)


@pytest.mark.processes
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs chromium")
@pytest.mark.parametrize("name", SCREENS)
async def test_a_picture_can_be_drawn(name: str, tmp_path: Path) -> None:
    """By the browser of this machine."""
    picture = tmp_path / "picture.png"
    await PICTURES[name](picture)

    assert picture.read_bytes().startswith(PNG)
