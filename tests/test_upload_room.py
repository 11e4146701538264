"""Room for uploads: what is too large or too much is refused unread, what was forgotten goes, and nobody shares."""

import asyncio
import os
import time

import pytest
from neurt.upload_room import BoundedRoom, bytes_in, forget, only_dropped, own_place


@pytest.fixture
def ask(tmp_path):
    """Ask for room with a content length; returns the status, with requests that are on their way meanwhile."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "there").write_bytes(bytes(1000))
    inner = []

    async def app(scope, receive, send):
        if inner:
            await send({"type": "http.response.start", "status": await answer(inner.pop())})
        else:
            await send({"type": "http.response.start", "status": 200})

    room = BoundedRoom(app, tmp_path, largest=500_000, room=1_000_000)

    async def answer(length, method="POST"):
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        said = []

        async def send(message):
            said.append(message)

        await room({"type": "http", "method": method, "headers": headers}, None, send)
        return said[0]["status"]

    def ask(length, *meanwhile, method="POST"):
        inner.extend(meanwhile)
        return asyncio.run(answer(length, method))

    return ask


@pytest.mark.parametrize(
    ("length", "status"), [(0, 200), (600_000, 200), (600_001, 413), (10**12, 413), (None, 411), ("x", 411), (-1, 411)]
)
def test_a_request_is_refused_by_its_length(ask, length, status):
    assert ask(length) == status


def test_files_that_are_there_and_those_on_their_way_take_room(ask):
    # 1,000 bytes are there.
    assert ask(400_000, 599_000) == 200
    assert ask(400_000, 599_001) == 503
    assert ask(600_000) == 200, "what has arrived, or was refused, is not counted twice"


def test_whoever_sends_nothing_needs_no_length(ask):
    assert ask(None, method="GET") == 200


def test_the_same_file_of_two_visitors_is_two(tmp_path):
    upload = tmp_path / "digest" / "mouse.npz"
    upload.parent.mkdir()
    places = []
    for contents in (b"first", b"second"):
        upload.write_bytes(contents)
        places.append(own_place(str(upload)))
    assert [open(place, "rb").read() for place in places] == [b"first", b"second"]
    assert all(place.endswith("/mouse.npz") for place in places) and not upload.exists()
    assert own_place(str(upload)) == str(upload)


def test_what_is_old_goes_and_what_is_new_stays(tmp_path):
    for name in ("old/part", "old/deep/file", "new/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    hour_ago = time.time() - 3600
    for path in (tmp_path / "old").rglob("*"):
        os.utime(path, (hour_ago, hour_ago))
    assert bytes_in(tmp_path) == 9
    forget(tmp_path, age=600)
    assert bytes_in(tmp_path) == 3 and (tmp_path / "new" / "file").exists()


def test_an_address_that_a_visitor_names_is_not_fetched():
    class File:
        async def async_move_resource_to_block_cache(self, path):
            return f"moved {path}"

    file = File()
    only_dropped(file)
    assert asyncio.run(file.async_move_resource_to_block_cache("a.npz")) == "moved a.npz"
    with pytest.raises(ValueError, match="expected a file that was dropped, got an address"):
        asyncio.run(file.async_move_resource_to_block_cache("http://example.org/x.npz"))
