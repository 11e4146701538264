"""Room for uploads: what is too large or too much is refused unread, what was forgotten goes, and nobody shares."""

import asyncio
import os
import time

import pytest
from neurt.upload_room import BoundedRoom, forget, make_room, only_dropped, own_place


@pytest.fixture
def ask(tmp_path):
    """Ask for room with a content length; returns the status, with requests that are on their way meanwhile."""
    inner = []

    async def app(scope, receive, send):
        if inner:
            await send({"type": "http.response.start", "status": await answer(inner.pop())})
        else:
            await send({"type": "http.response.start", "status": 200})

    room = BoundedRoom(app, tmp_path, largest=500_000, room=1_000_000, seconds=60)

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


def test_files_on_their_way_take_room(ask):
    assert ask(400_000, 600_000) == 200
    assert ask(400_001, 600_000) == 503
    assert ask(600_000) == 200, "what has arrived, or was refused, is not counted any more"


def test_the_oldest_files_make_room_for_those_on_their_way(ask, tmp_path):
    for age, name in enumerate(("newest", "middle", "oldest")):
        put(tmp_path / "deep" / name, 300_000, age)
    assert ask(100_000) == 200 and left(tmp_path) == {"newest", "middle", "oldest"}
    assert ask(300_000, 100_001) == 200 and left(tmp_path) == {"newest"}
    assert ask(10**9) == 413 and left(tmp_path) == {"newest"}, "what is refused takes nobody's room"


def test_just_as_many_files_go_as_must(tmp_path):
    for age, name in enumerate(("c", "b", "a")):
        put(tmp_path / name, 10, age)
    make_room(tmp_path, 30)
    assert left(tmp_path) == {"a", "b", "c"}
    make_room(tmp_path, 29)
    assert left(tmp_path) == {"b", "c"}
    make_room(tmp_path, 0)
    assert left(tmp_path) == set()


def put(path, size, age):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age, time.time() - age))


def left(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_file_that_never_arrives_keeps_no_room(tmp_path):
    said = []

    async def never(scope, receive, send):
        await asyncio.Event().wait()

    async def send(message):
        said.append(message)

    room = BoundedRoom(never, tmp_path, largest=10, room=20, seconds=0.05)
    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", b"10")]}
    asyncio.run(asyncio.wait_for(room(scope, None, send), timeout=20))
    assert said[0]["status"] == 408 and b"expected the file within 0.05 seconds" in said[1]["body"]
    assert room.arriving == 0


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
    forget(tmp_path, age=600)
    assert left(tmp_path / "old") == set() and left(tmp_path / "new") == {"file"}


def test_an_address_that_a_visitor_names_is_not_fetched():
    class File:
        async def async_move_resource_to_block_cache(self, path):
            return f"moved {path}"

    file = File()
    only_dropped(file)
    assert asyncio.run(file.async_move_resource_to_block_cache("a.npz")) == "moved a.npz"
    with pytest.raises(ValueError, match="expected a file that was dropped, got an address"):
        asyncio.run(file.async_move_resource_to_block_cache("http://example.org/x.npz"))
