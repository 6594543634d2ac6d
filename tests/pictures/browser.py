"""A browser without a window, which makes a picture of a page."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")


def take_picture(page: str, picture: Path, width: int, height: int) -> None:
    """Draw an HTML page of so many pixels.

    Raises:
        RuntimeError: there is no browser, or it drew nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError(f"pictures need a browser: one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        path.write_text(page, encoding="utf-8")
        arguments = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--user-data-dir={folder}/profile",
            f"--screenshot={picture}",
            f"--window-size={width},{height}",
            path.as_uri(),
        )
        ended = subprocess.run([browser, *arguments], capture_output=True, check=False)
    if ended.returncode or not picture.exists():
        raise RuntimeError(f"{browser} drew nothing: {ended.stderr[-500:].decode()}")
