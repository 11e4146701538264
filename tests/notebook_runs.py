"""Executes notebooks: python tests/notebook_runs.py NOTEBOOK saves it with its new outputs, for after a change."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a folder with this Python; returns it with its outputs and nothing about when and where."""
    notebook = nbformat.read(path, as_version=4)
    metadata = notebook.metadata.copy()
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False, coalesce_streams=True)
    client.execute(cwd=str(folder))
    notebook.metadata = metadata
    for cell in notebook.cells:
        cell.metadata = {}
    return notebook


if __name__ == "__main__":
    path = Path(sys.argv[1])
    nbformat.write(execute(path, path.parent), path)
