"""What SOURCE means, which scans it holds, and remote files read in pieces."""

import logging
import os
import sys

import h5py
import numpy as np
import pytest
from neurt.dataset_scripts.microns_files import (
    SELECTED,
    ScanFile,
    WholePieces,
    find_scans,
    fingerprint,
    open_scan,
    parse_scans,
)
from range_server import serving

NAME = "sub-17797_ses-{}-scan-{}_behavior+image+ophys.nwb"


def write_scan(path, session_id="4-scan-7"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["general/session_id"] = session_id
        file["traces"] = np.arange(6)
    return path


@pytest.fixture
def folder(tmp_path):
    """Scans 4-7 and 9-3, which are selected, 4-9 and 10-12, which are not, and a file of something else."""
    for session, scan in ((4, 7), (9, 3), (4, 9), (10, 12)):
        write_scan(tmp_path / "sub-17797" / NAME.format(session, scan), f"{session}-scan-{scan}")
    write_scan(tmp_path / "other.nwb")
    return tmp_path


def test_the_selection_is_that_of_the_consortium():
    assert len(SELECTED) == len(set(SELECTED)) == 14
    assert {scan for scan in SELECTED if scan.startswith("5")} == {"5-6", "5-7"} and "4-9" not in SELECTED


def test_a_folder_gives_the_selected_scans_that_are_there_in_order(folder):
    found = find_scans(folder)
    assert [file.scan for file in found] == ["4-7", "9-3"]
    assert found[0] == ScanFile("4-7", NAME.format(4, 7), str(folder / "sub-17797" / NAME.format(4, 7)))


def test_chosen_scans_come_in_order_of_numbers_whatever_the_selection_says(folder):
    assert [file.scan for file in find_scans(folder, ["10-12", "4-9", "9-3"])] == ["4-9", "9-3", "10-12"]


def test_a_relative_path_becomes_absolute_for_workers_elsewhere(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for source in ("sub-17797", f"sub-17797/{NAME.format(4, 7)}"):
        assert os.path.isabs(find_scans(source)[0].location)


def test_a_single_file_is_the_scan_that_its_name_or_else_its_session_id_says(folder):
    assert find_scans(folder / "sub-17797" / NAME.format(4, 9))[0].scan == "4-9"
    assert find_scans(folder / "other.nwb") == [ScanFile("4-7", "other.nwb", str(folder / "other.nwb"))]


@pytest.mark.parametrize("session_id", ["some mouse", "4-scan-7b", "../4-scan-7", [b"4-scan-7"], 4.7])
def test_a_file_that_is_no_scan_is_refused(tmp_path, session_id):
    with pytest.raises(ValueError, match="expected a MICrONS scan, with a session_id as in 4-scan-7"):
        find_scans(write_scan(tmp_path / "other.nwb", session_id))


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        (["4-10"], "expected the scans 4-10, found 4-7, 4-9, 9-3, 10-12; choose with --scans"),
        (["4-7", "5-6", "8-5"], "found none for 5-6, 8-5"),
    ],
)
def test_scans_that_are_not_there_are_named(folder, scans, message):
    with pytest.raises(ValueError, match=message):
        find_scans(folder, scans)


def test_a_folder_without_a_scan_and_a_path_to_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected some of the 14 selected MICrONS scans, found no file"):
        find_scans(tmp_path)
    with pytest.raises(ValueError, match="found nothing there"):
        find_scans(tmp_path / "nowhere")


def test_two_files_of_one_scan_are_refused_by_name(folder):
    write_scan(folder / "copy" / NAME.format(4, 7))
    with pytest.raises(ValueError, match="got 2 files for 4-7") as refused:
        find_scans(folder)
    assert f"copy/{NAME.format(4, 7)}" in str(refused.value)


@pytest.mark.parametrize(("text", "scans"), [(None, None), ("4-7", ("4-7",)), ("4-7, 10-12", ("4-7", "10-12"))])
def test_scans_are_a_list_with_commas(text, scans):
    assert parse_scans(text) == scans


@pytest.mark.parametrize("text", ["", "4", "4-7,", "4-7;5-6", "4-7,4-7", "../4-7", "1234-5"])
def test_a_list_of_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="--scans: expected each scan once as session-scan"):
        parse_scans(text)


def test_a_url_is_named_and_read_like_the_file_behind_it(folder, tmp_path):
    pytest.importorskip("remfile")
    with serving(folder / "sub-17797") as server:
        file = find_scans(f"{server.url}/{NAME.format(4, 7)}?signature=1")[0]
        assert (file.scan, file.file, file.is_remote) == ("4-7", NAME.format(4, 7), True)
        with open_scan(file, tmp_path / "cache") as opened:
            assert opened["traces"][()].tolist() == [0, 1, 2, 3, 4, 5]
        sent = server.sent
        server.refuses_from = 0
        with open_scan(file, tmp_path / "cache") as opened:
            assert opened["traces"][()].tolist() == [0, 1, 2, 3, 4, 5]
        assert sent > 0


def test_a_url_without_a_name_tells_its_scan_inside(folder):
    pytest.importorskip("remfile")
    with serving(folder) as server:
        assert find_scans(f"{server.url}/other.nwb")[0].scan == "4-7"
        with pytest.raises(ValueError, match="missing.nwb: expected a server that sends .*404.*; check the URL"):
            find_scans(f"{server.url}/missing.nwb")


def test_a_piece_that_was_not_wholly_kept_is_not_there(tmp_path, monkeypatch):
    pieces = WholePieces(tmp_path)
    pieces.set("a", b"whole")
    assert (pieces.get("a"), pieces.get("b")) == (b"whole", None)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        pieces.set("b", b"torn")
    assert pieces.get("b") is None


def test_a_file_that_was_replaced_has_another_fingerprint(folder):
    file = find_scans(folder)[0]
    before = fingerprint(file)
    assert fingerprint(file) == before
    write_scan(folder / "sub-17797" / NAME.format(4, 7), "4-scan-7")
    assert fingerprint(file) != before
    assert fingerprint(ScanFile("4-7", "a.nwb", "https://example.org/a.nwb")) == ()


class FakeDandi:
    """Stands for `dandi.dandiapi`: one dandiset with scans 4-7 and 5-6."""

    def __init__(self):
        self.asked = []

    def DandiAPIClient(self):  # noqa: N802 (the name that dandi has)
        return self

    def get_dandiset(self, dandiset, version):
        self.asked.append((dandiset, version))
        return self

    def get_asset_by_path(self, path):
        if not any(path.endswith(NAME.format(*scan)) for scan in ((4, 7), (5, 6))):
            raise RuntimeError(f"No asset at path {path!r}")
        self.asked.append(path)
        return self

    def get_content_url(self, follow_redirects, strip_query):
        assert follow_redirects == 1 and strip_query
        return f"https://example.org/blobs/{len(self.asked)}"


@pytest.fixture
def dandi(monkeypatch):
    fake = FakeDandi()
    monkeypatch.setitem(sys.modules, "dandi", fake)
    monkeypatch.setitem(sys.modules, "dandi.dandiapi", fake)
    return fake


def test_a_dandiset_gives_the_urls_of_its_scans(dandi):
    found = find_scans("dandi:000402@0.240430.2138", ["5-6", "4-7"])
    assert found == [
        ScanFile("4-7", NAME.format(4, 7), "https://example.org/blobs/3"),
        ScanFile("5-6", NAME.format(5, 6), "https://example.org/blobs/2"),
    ]
    assert dandi.asked == [
        ("000402", "0.240430.2138"),
        f"sub-17797/{NAME.format(5, 6)}",
        f"sub-17797/{NAME.format(4, 7)}",
    ]


def test_a_scan_that_the_dandiset_lacks_is_named(dandi):
    with pytest.raises(ValueError, match=r"expected the file sub-17797/sub-17797_ses-9-scan-3.*No asset at path"):
        find_scans("dandi:000402@0.240430.2138", ["9-3"])


def test_an_archive_that_does_not_answer_is_one_plain_line(dandi, monkeypatch, capsys):
    def get_dandiset(*_):
        # As dandi does before it gives up; pytest's own logging stands aside.
        monkeypatch.setattr(logging.getLogger("dandi"), "propagate", False)
        logging.getLogger("dandi").error("HTTP connection failed")
        raise ConnectionError("HTTPSConnectionPool(host='api.dandiarchive.org', port=443): Max retries exceeded")

    monkeypatch.setattr(dandi, "get_dandiset", get_dandiset)
    with pytest.raises(ValueError, match=r"got ConnectionError; look whether .* or give a folder") as error:
        find_scans("dandi:000402@0.240430.2138")
    assert "\n" not in str(error.value) and capsys.readouterr().err == ""


@pytest.mark.parametrize("source", ["dandi:000402", "dandi:000402@", "dandi:000003@0.1", "dandi:000402@../x"])
def test_a_dandiset_needs_its_number_and_version(source):
    with pytest.raises(ValueError, match="expected dandi:000402 with its version"):
        find_scans(source)


@pytest.mark.parametrize("source", ["dandi:000402@0.240430.2138", "http://127.0.0.1:9/other.nwb"])
def test_without_the_extra_the_error_says_what_to_install(monkeypatch, source):
    monkeypatch.setitem(sys.modules, "dandi.dandiapi", None)
    monkeypatch.setitem(sys.modules, "remfile", None)
    with pytest.raises(ValueError, match=r"pip install neurt\[dandi\]"):
        find_scans(source)
