"""Runs code as users of a repository do: in a process of its own that cannot import neurt."""

import subprocess
import sys
from pathlib import Path

WITHOUT_NEURT = """
import importlib.util, sys
sys.path = [path for path in sys.path if path]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
assert importlib.util.find_spec("neurt") is None
"""


def run_elsewhere(code: str, *words: object, folder: Path, environment: dict[str, str]) -> str:
    """Run code in a folder, with words behind it and no other environment; returns what it prints, errors first."""
    command = [sys.executable, "-c", WITHOUT_NEURT + code, *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout
