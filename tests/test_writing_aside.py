"""Files and folders appear whole or not at all, and nothing of others is touched."""

import os
import runpy
import signal
import subprocess
import sys

import pytest
from neurt import writing_aside
from neurt.writing_aside import file_aside, folder_aside, require_new

WAYS = pytest.mark.parametrize("way", [file_aside, folder_aside])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(aside, text="new"):
    """Write to what either way gives: a path for a file, or an empty folder."""
    (aside / "a.txt" if aside.is_dir() else aside).write_text(text)


def text_of(place):
    return (place / "a.txt" if place.is_dir() else place).read_text()


@WAYS
def test_it_appears_when_it_is_complete_and_leaves_nothing_beside_it(tmp_path, way):
    place = tmp_path / "made" / "on the way" / "out"
    with way(place) as aside:
        assert aside.name == "out"
        fill(aside)
        assert not place.exists()
    assert text_of(place) == "new" and names(place.parent) == ["out"]


@WAYS
@pytest.mark.parametrize("stop", [OSError("no space left"), KeyboardInterrupt()])
def test_nothing_appears_when_writing_fails(tmp_path, way, stop):
    with pytest.raises(type(stop)), way(tmp_path / "out") as aside:
        fill(aside)
        raise stop
    assert names(tmp_path) == []


@WAYS
def test_what_is_there_is_refused_before_writing(tmp_path, way):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out: expected .* that does not exist yet"), way(tmp_path / "out"):
        raise AssertionError("it began to write")
    assert (tmp_path / "out").read_text() == "mine" and names(tmp_path) == ["out"]


@WAYS
def test_what_appears_meanwhile_is_not_replaced(tmp_path, way):
    with pytest.raises(ValueError, match="does not exist yet"), way(tmp_path / "out") as aside:
        fill(aside)
        (tmp_path / "out").write_text("mine")
    assert (tmp_path / "out").read_text() == "mine" and names(tmp_path) == ["out"]


@WAYS
def test_what_is_there_is_replaced_on_request_and_stays_until_then(tmp_path, way):
    place = tmp_path / "out"
    with way(place) as aside:
        fill(aside, "old")
    with way(place, replace=True) as aside:
        fill(aside, "new")
        assert text_of(place) == "old"
    assert text_of(place) == "new" and names(tmp_path) == ["out"]


@WAYS
def test_what_is_there_stays_when_replacing_fails(tmp_path, way, monkeypatch):
    place = tmp_path / "out"
    with way(place) as aside:
        fill(aside, "old")
    with pytest.raises(ZeroDivisionError), way(place, replace=True) as aside:
        fill(aside, "new")
        raise ZeroDivisionError
    assert text_of(place) == "old"
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    rename = os.rename
    # Of a folder, the new one cannot be put in its place after the old one was moved away.
    monkeypatch.setattr(os, "rename", lambda a, b: os.replace(a, b) if a.name == b.name == "out" else rename(a, b))
    with pytest.raises(OSError, match="no space"), way(place, replace=True) as aside:
        fill(aside, "new")
    assert text_of(place) == "old" and names(tmp_path) == ["out"]


def test_a_folder_does_not_take_the_place_of_a_file_nor_a_file_that_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="file: expected a folder to replace"):
        folder_aside(tmp_path / "file", replace=True).__enter__()
    with pytest.raises(ValueError, match="folder: expected an output file to replace"):
        file_aside(tmp_path / "folder", replace=True).__enter__()
    assert names(tmp_path) == ["file", "folder"]


def test_a_link_stays_a_link_to_what_is_replaced(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with file_aside(tmp_path / "link", replace=True) as aside:
        fill(aside)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


@WAYS
def test_what_is_made_can_be_read_by_whom_the_user_lets(tmp_path, way):
    (tmp_path / "plain").mkdir() if way is folder_aside else (tmp_path / "plain").write_text("")
    with way(tmp_path / "out") as aside:
        fill(aside)
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


@WAYS
def test_two_may_write_to_one_place_and_the_first_to_end_wins(tmp_path, way):
    with pytest.raises(ValueError, match="does not exist yet"), way(tmp_path / "out") as slow:
        fill(slow, "slow")
        with way(tmp_path / "out") as fast:
            fill(fast, "fast")
        assert text_of(slow) == "slow"
    assert text_of(tmp_path / "out") == "fast" and names(tmp_path) == ["out"]


def kill_in_the_middle(place, way, moment):
    """Have another process replace a place, and end it at a moment: "writing" or just after the old one was moved."""
    child = """if True:
        import os, runpy, signal, sys
        aside = runpy.run_path(sys.argv[1])
        rename = os.rename
        def rename_and_die(a, b):
            rename(a, b)
            os.kill(os.getpid(), signal.SIGKILL)
        with aside[sys.argv[3]](sys.argv[2], replace=True) as path:
            (path / "a.txt" if path.is_dir() else path).write_text("half")
            if sys.argv[4] == "writing":
                os.kill(os.getpid(), signal.SIGKILL)
            os.rename = rename_and_die
    """
    done = subprocess.run([sys.executable, "-c", child, writing_aside.__file__, place, way.__name__, moment])
    assert done.returncode == -signal.SIGKILL


@WAYS
def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path, way):
    kill_in_the_middle(tmp_path / "out", way, "writing")
    (left,) = names(tmp_path)
    assert left.startswith(".out.") and left.endswith(".partial")
    with way(tmp_path / "other") as aside:
        fill(aside)
    assert left in names(tmp_path), "it belongs to another place"
    with way(tmp_path / "out") as aside:
        fill(aside)
    assert names(tmp_path) == ["other", "out"]


def test_a_folder_that_a_killed_process_had_moved_away_comes_back(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    kill_in_the_middle(tmp_path / "out", folder_aside, "moved")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="does not exist yet"):
        folder_aside(tmp_path / "out").__enter__()
    assert text_of(tmp_path / "out") == "old" and names(tmp_path) == ["out"]


def test_what_a_running_process_or_another_machine_or_anyone_else_writes_stays(tmp_path):
    own = runpy.run_path(writing_aside.__file__)["_MACHINE"]
    others = [
        f".out.{own}-{os.getppid()}-0.partial",
        ".out.00000000-999999999-0.partial",
        ".out.partial",
        f".out.{own}-999999999-0.partial.txt",
        f".outer.{own}-999999999-0.partial",
        f"x.out.{own}-999999999-0.partial",
    ]
    for name in [*others, f".out.{own}-999999999-0.partial", f".out.{own}-{os.getpid()}-999.partial"]:
        (tmp_path / name).mkdir()
    with file_aside(tmp_path / "out") as aside:
        fill(aside)
    assert names(tmp_path) == sorted([*others, "out"])


def test_a_new_output_may_not_even_be_a_link_that_leads_nowhere(tmp_path):
    require_new(tmp_path / "out", "a folder")
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(ValueError, match="out: expected a folder that does not exist yet"):
        require_new(tmp_path / "out", "a folder")
