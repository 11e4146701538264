"""The Hub of the tests answers the real clients as the Hub does, and fails when it is told to."""

import hashlib

import pytest
from hub_server import OTHER_TOKEN, OWNER
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

MODEL = f"{OWNER}/model"
SMALL, LARGE = b"plain text", bytes(range(256)) * 10


@pytest.fixture
def api(hub):
    return HfApi()


@pytest.fixture
def repository(hub, api):
    """A private one with a small file, and a large one in a folder."""
    api.create_repo(MODEL, private=True)
    api.create_commit(MODEL, [add("a.txt", SMALL), add("deep/er/b.bin", LARGE)], commit_message="first")
    return hub.repositories["model", MODEL]


def add(path, content):
    return CommitOperationAdd(path, content)


def asked(hub, word):
    return [path for _, path in hub.requests if word in path]


def test_what_is_committed_is_listed_and_comes_back(repository, api, tmp_path):
    commit = repository.at("main")
    assert api.list_repo_files(MODEL) == [".gitattributes", "a.txt", "deep/er/b.bin"]
    for path, content in {"a.txt": SMALL, "deep/er/b.bin": LARGE}.items():
        found = hf_hub_download(MODEL, path, cache_dir=tmp_path)
        with open(found, "rb") as file:
            assert file.read() == content
    assert api.model_info(MODEL).sha == commit.oid and api.model_info(MODEL).private


def test_files_have_the_digests_of_git_and_of_large_files(repository, api):
    small, large = api.get_paths_info(MODEL, ["a.txt", "deep/er/b.bin"])
    # Of `git hash-object`, and of `sha256sum`.
    assert small.blob_id == "7ebac23ab568dbec6439708db86d8eb065e7edfe" and small.lfs is None
    assert large.lfs.sha256 == hashlib.sha256(LARGE).hexdigest() and large.size == len(LARGE) == 2560


def test_the_tree_is_listed_folder_by_folder(repository, api):
    paths = [entry.path for entry in api.list_repo_tree(MODEL)]
    assert paths == [".gitattributes", "a.txt", "deep"]
    assert [entry.path for entry in api.list_repo_tree(MODEL, "deep", recursive=True)] == ["deep/er", "deep/er/b.bin"]
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(MODEL, "nowhere"))


@pytest.mark.parametrize("part_size", [2**20, 1000])
def test_large_files_go_in_one_piece_or_in_parts_and_never_twice(hub, api, part_size):
    hub.part_size = part_size
    api.create_repo(MODEL)
    for name in ("a.bin", "b.bin"):
        api.create_commit(MODEL, [add(name, LARGE)], commit_message="x")
    stored = [path.partition(hashlib.sha256(LARGE).hexdigest())[2] for path in asked(hub, "/storage/")]
    assert stored == (["", "/verify"] if part_size > 2560 else ["/1", "/2", "/3", "/complete", "/verify"])
    assert hub.repositories["model", MODEL].at("main").files["b.bin"].content == LARGE


def test_parts_of_a_file_are_read_alone(hub, repository):
    with HfFileSystem().open(f"{MODEL}/deep/er/b.bin", block_size=64) as file:
        file.seek(1000)
        assert file.read(5) == LARGE[1000:1005]


def test_a_commit_is_there_whole_or_not_at_all(repository, api):
    before = repository.state()
    with pytest.raises(HfHubHTTPError, match="doesn't exist"):
        api.create_commit(MODEL, [add("c.txt", b"c"), CommitOperationDelete("nowhere")], commit_message="x")
    with pytest.raises(HfHubHTTPError, match="A commit has happened since"):
        api.create_commit(MODEL, [add("c.txt", b"c")], commit_message="x", parent_commit=40 * "0")
    assert repository.state() == before
    api.create_commit(MODEL, [add("c.txt", b"c"), CommitOperationDelete("a.txt")], commit_message="x")
    assert sorted(repository.at("main").files) == [".gitattributes", "c.txt", "deep/er/b.bin"]


def test_branches_and_commits_keep_what_they_had(repository, api):
    first = repository.at("main").oid
    api.create_branch(MODEL, branch="v1")
    api.create_commit(MODEL, [add("a.txt", b"other")], commit_message="x", revision="v1")
    contents = {revision: repository.at(revision).files["a.txt"].content for revision in ("main", "v1", first)}
    assert contents == {"main": SMALL, "v1": b"other", first: SMALL}
    assert {branch.name: branch.target_commit for branch in api.list_repo_refs(MODEL).branches}["main"] == first
    with pytest.raises(RevisionNotFoundError):
        api.model_info(MODEL, revision="v2")


def test_a_private_repository_is_not_there_for_others(repository, api):
    for token in (OTHER_TOKEN, False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info(MODEL)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(token="hf_wrong").model_info(MODEL)
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(MODEL)


def test_others_read_what_is_public_and_write_nothing(hub, api):
    api.create_repo(MODEL, private=False)
    other = HfApi(token=OTHER_TOKEN)
    assert other.model_info(MODEL).private is False
    for act in (lambda: other.create_repo(f"{OWNER}/new"), lambda: other.create_branch(MODEL, branch="v1")):
        with pytest.raises(HfHubHTTPError) as error:
            act()
        assert error.value.response.status_code == 403


def test_a_repository_is_made_once(api, repository):
    with pytest.raises(HfHubHTTPError, match="already created"):
        api.create_repo(MODEL)
    assert api.create_repo(MODEL, exist_ok=True).repo_id == MODEL


def test_a_card_must_have_metadata_that_can_be_read(repository, api):
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        api.create_commit(MODEL, [add("README.md", b"---\na: [\n---\nx")], commit_message="x")
    api.create_commit(MODEL, [add("README.md", b"---\nlicense: mit\n---\nx")], commit_message="x")


def test_a_full_repository_takes_no_more(hub, repository, api):
    hub.room = len(LARGE) + 9
    with pytest.raises(ValueError, match="exceeded your storage limit"):
        api.create_commit(MODEL, [add("c.bin", b"0123456789")], commit_message="x")


def test_requests_fail_on_demand_so_often(hub, repository, api):
    hub.fail("GET", "/api/models/", 429, "slow down", times=2, retry_after="7")
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="slow down") as error:
            api.model_info(MODEL)
        assert error.value.response.headers["Retry-After"] == "7"
    assert api.model_info(MODEL).id == MODEL


def test_an_answer_can_be_lost_after_the_deed(hub, repository, api):
    hub.fail("POST", "/commit/main", None)
    with pytest.raises(httpx.TransportError):
        api.create_commit(MODEL, [add("c.txt", b"c")], commit_message="x")
    assert repository.at("main").files["c.txt"].content == b"c"


def test_the_network_goes_after_so_many_bytes_and_comes_back(hub, repository, api):
    hub.cut_after = hub.received + 300
    with pytest.raises(httpx.TransportError):
        api.create_commit(MODEL, [add("c.txt", b"c" * 10_000)], commit_message="x")
    assert hub.received == hub.cut_after and "c.txt" not in repository.at("main").files
    hub.cut_after = None
    api.create_commit(MODEL, [add("c.txt", b"c" * 10_000)], commit_message="x")
    assert "c.txt" in repository.at("main").files
