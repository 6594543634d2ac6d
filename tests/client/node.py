"""Node, and the one package that programs in it need."""

import shutil
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
NODE: Final = shutil.which("node")
MODULES: Final = ROOT / "tests/benchmarks/contenders/node/node_modules"

needs_node: Final = pytest.mark.skipif(
    not (NODE and (MODULES / "ioredis").is_dir()),
    reason=f"needs Node, and npm ci --prefix {MODULES.parent.relative_to(ROOT)}",
)
