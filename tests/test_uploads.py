"""Uploads: what is honest is unpacked, and each kind of hostile file is refused in one sentence."""

import subprocess
import sys
import zipfile
from pathlib import Path

import hostile_zips
import numpy as np
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from neurt.one_recording import Stated, read_upload
from neurt.uploads import Limits, check_values, take_in

SMALL = Limits(upload=10**6, unpacked=10**6, members=20, values=100)
MEGABYTE = 10**6


@pytest.fixture
def folder(tmp_path):
    """Empty, with nothing but the uploads beside it."""
    (tmp_path / "in" / "folder").mkdir(parents=True)
    return tmp_path / "in" / "folder"


def refusal(upload, folder, limits=SMALL):
    """The one sentence; nothing may have been written anywhere."""
    with pytest.raises(ValueError) as caught:
        take_in(upload, folder, limits)
    assert list(folder.parent.rglob("*")) == [folder]
    message = str(caught.value)
    assert message.startswith("expected ") and "\n" not in message
    return message


def test_a_zip_of_a_suite2p_folder_is_unpacked_and_read(tmp_path, folder):
    extra = {"suite2p/plane0/data.bin": b"movie", "__MACOSX/suite2p/plane0/._F.npy": b"resource", "run.py": b"print()"}
    upload = hostile_zips.suite2p_zip(tmp_path / "mouse 1.zip", **extra)
    place = take_in(upload, folder)
    assert place == folder / "mouse 1"
    written = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert written == {f"suite2p/plane0/{name}" for name in hostile_zips.plane()}
    assert all((place / "suite2p/plane0" / name).read_bytes() == each for name, each in hostile_zips.plane().items())


def test_an_unpacked_recording_is_named_after_its_zip(tmp_path, folder):
    (found,), notes = read_upload(hostile_zips.suite2p_zip(tmp_path / "mouse 1.zip"), folder, Stated())
    assert (found.recording_id, found.traces.shape, found.sampling_rate) == ("mouse 1_plane0", (8, 200), 5)
    assert notes == []


def test_a_plane_without_neurons_is_passed_over_unless_it_is_the_only_one(tmp_path, folder):
    none = hostile_zips.npy(np.zeros((8, 2), np.float32))
    files = {f"plane1/{name}": contents for name, contents in (hostile_zips.plane() | {"iscell.npy": none}).items()}
    both = {**files, **{f"plane0/{name}": contents for name, contents in hostile_zips.plane().items()}}
    (found,), notes = read_upload(hostile_zips.write_zip(tmp_path / "a.zip", both), folder, Stated())
    assert found.recording_id == "a_plane0" and notes == ["left plane1: none of its 8 ROIs is accepted in iscell"]
    with pytest.raises(ValueError, match="a recording with neurons in it, got none; left plane1: none of its 8 ROIs"):
        read_upload(hostile_zips.write_zip(tmp_path / "b.zip", files), folder, Stated())


@pytest.mark.parametrize("name", ["recording.npz", "RECORDING.NPZ"])
def test_an_archive_of_arrays_is_moved(tmp_path, folder, name):
    with open(tmp_path / name, "wb") as file:
        np.savez(file, traces=np.zeros((2, 3)))
    contents = (tmp_path / name).read_bytes()
    path = take_in(tmp_path / name, folder)
    assert path.parent == folder and path.read_bytes() == contents and not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["...zip", "..zip", ".zip.zip"])
def test_a_name_of_dots_stays_in_the_folder(tmp_path, folder, name):
    place = take_in(hostile_zips.suite2p_zip(tmp_path / name), folder)
    assert place.parent == folder and not place.name.startswith(".")


@pytest.mark.parametrize(
    "name",
    [
        "../F.npy",
        "plane0/../../../../etc/cron.d/F.npy",
        "/etc/F.npy",
        "C:/Windows/F.npy",
        "..\\..\\F.npy",
        "\\\\server\\share\\F.npy",
        "plane0/F.npy\0.txt",
    ],
)
def test_a_path_that_leads_out_is_refused(tmp_path, folder, name):
    upload = tmp_path / "a.zip"
    hostile_zips.with_member(upload, name.replace("\0", "\1"))
    upload.write_bytes(upload.read_bytes().replace(b"F.npy\1", b"F.npy\0"))
    assert "paths within the archive" in refusal(upload, folder)


def test_links_and_devices_are_refused(tmp_path, folder):
    assert "got a link or device" in refusal(hostile_zips.with_link(tmp_path / "a.zip"), folder)


def test_a_bomb_is_refused_by_what_it_says(tmp_path, folder):
    upload = hostile_zips.bomb(tmp_path / "a.zip", 50 * MEGABYTE)
    assert upload.stat().st_size < MEGABYTE / 10
    assert refusal(upload, folder) == "expected at most 1.0 MB when unpacked, got 50.0 MB"


def test_a_bomb_that_lies_about_its_size_ends_where_it_said(tmp_path, folder):
    upload = hostile_zips.lying_bomb(tmp_path / "a.zip", 50 * MEGABYTE, said=5000)
    with pytest.raises(ValueError, match="that is what it says, got a damaged one"):
        take_in(upload, folder, SMALL)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 5000


def test_zips_in_zips_are_never_opened(tmp_path, folder):
    message = refusal(hostile_zips.nested_bomb(tmp_path / "a.zip", 100_000), folder)
    assert (
        message
        == "expected a zip of a suite2p folder, with F.npy in it, got one with '0.zip', '1.zip', '2.zip', '3.zip'"
    )


def test_entries_that_share_their_bytes_add_up(tmp_path, folder):
    upload = hostile_zips.overlapping_bomb(tmp_path / "a.zip", 200_000, entries=10)
    assert refusal(upload, folder) == "expected at most 1.0 MB when unpacked, got 2.0 MB"


def test_too_many_files_are_refused(tmp_path, folder):
    upload = hostile_zips.write_zip(tmp_path / "a.zip", {f"{i}/F.npy": b"" for i in range(21)})
    assert refusal(upload, folder) == "expected at most 20 files in the archive, got 21"


def test_a_bomb_as_npz_is_refused(tmp_path, folder):
    np.savez_compressed(tmp_path / "a.npz", traces=np.zeros((500, 500)))
    assert refusal(tmp_path / "a.npz", folder) == "expected at most 1.0 MB when unpacked, got 2.0 MB"


def test_other_compressions_and_passwords_are_refused(tmp_path, folder):
    upload = hostile_zips.write_zip(tmp_path / "a.zip", hostile_zips.plane(), zipfile.ZIP_LZMA)
    assert "another compression" in refusal(upload, folder)
    upload = hostile_zips.suite2p_zip(tmp_path / "b.zip")
    data = bytearray(upload.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    upload.write_bytes(data)
    assert "without a password" in refusal(upload, folder)


def test_a_file_that_is_there_twice_is_refused(tmp_path, folder):
    upload = hostile_zips.with_member(tmp_path / "a.zip", "suite2p/plane0/f.NPY")
    assert "once in the archive" in refusal(upload, folder)


def test_long_paths_are_refused(tmp_path, folder):
    upload = hostile_zips.with_member(tmp_path / "a.zip", "a/" * 150 + "F.npy")
    assert refusal(upload, folder) == "expected paths of at most 200 letters in the archive, got one of 305"


def test_a_large_file_an_empty_one_and_another_kind_are_refused(tmp_path, folder):
    (tmp_path / "a.nwb").write_bytes(bytes(MEGABYTE + 1))
    assert refusal(tmp_path / "a.nwb", folder) == "expected a file of at most 1.0 MB, got 1.0 MB"
    (tmp_path / "a.pkl").write_bytes(b"x")
    assert refusal(tmp_path / "a.pkl", folder) == "expected a file that ends in .npz, .zip, .nwb, got 'a.pkl'"
    (tmp_path / "a.zip").write_bytes(b"")
    assert refusal(tmp_path / "a.zip", folder) == "expected a recording, got an empty file; copy or export it again"
    (tmp_path / "b.npz").write_bytes(b"no zip")
    assert "that is what it says" in refusal(tmp_path / "b.npz", folder)


def test_many_values_are_refused():
    check_values(100, SMALL)
    with pytest.raises(ValueError, match=r"at most 100 values \(neurons × frames\), got 101; cut the recording"):
        check_values(101, SMALL)


def test_a_pickle_in_a_zip_is_not_executed(tmp_path, folder):
    witness = tmp_path / "executed"
    upload = hostile_zips.pickle_that_runs(tmp_path / "a.zip", f"touch {witness}")
    # The file does what it should where Python's own loader opens it.
    with zipfile.ZipFile(upload) as archive:
        archive.extract("suite2p/plane0/ops.npy", tmp_path / "honest")
    load = "import numpy, sys; numpy.load(sys.argv[1], allow_pickle=True)"
    subprocess.run([sys.executable, "-c", load, tmp_path / "honest/suite2p/plane0/ops.npy"], check=True)
    assert witness.exists()
    witness.unlink()
    with pytest.raises(ValueError, match="it is refused because loading it could run anything"):
        read_upload(upload, folder, Stated())
    assert not witness.exists()


def test_a_pickle_in_an_npz_is_not_executed(tmp_path, folder):
    witness = tmp_path / "executed"
    traces = np.array([[hostile_zips.Command(f"touch {witness}")]], dtype=object)
    np.savez(tmp_path / "a.npz", traces=traces, allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects in 'traces', which are not loaded"):
        read_upload(tmp_path / "a.npz", folder, Stated())
    assert not witness.exists()


@damages
@given(damage())
def test_damaged_zips_are_read_or_refused_in_one_line(tmp_path_factory, change):
    folder: Path = tmp_path_factory.mktemp("damaged")
    upload = hostile_zips.suite2p_zip(folder / "a.zip")
    upload.write_bytes(change(upload.read_bytes()))
    (folder / "in").mkdir()
    reads_or_refuses(lambda: read_upload(upload, folder / "in", Stated()))
