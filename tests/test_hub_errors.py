"""A refusal, or a network that goes, is one line without the token, and leaves the repository as it was."""

import copy
import hashlib

import hub_server
import numpy as np
import pytest
from hub_server import OTHER_TOKEN, STRANGER, TOKEN, XET_TOKEN, connect, connect_xet
from huggingface_hub import CommitOperationAdd, HfApi, constants
from neurt.publish import push_dataset, push_model
from pushes import MODEL, NAME, RESULTS, different, files, published, refused
from small_builds import recording, write


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/api/models/", 401, "expected a token that the Hub knows"),
        ("POST", "/preupload/", 403, "expected the right to write there"),
        ("POST", "/objects/batch", 429, "asks to wait 7 s"),
        ("POST", "/commit/", 429, "asks to wait 7 s"),
        ("PUT", "/storage/", 413, "expected room on the Hub"),
        ("POST", "/commit/", 507, "expected room on the Hub"),
        ("POST", "/commit/", 412, "someone else has pushed there meanwhile"),
        ("GET", "/tree/", 404, "expected a repository and a revision that are there"),
        ("POST", "/commit/", 500, "the Hub has trouble .HTTP status 500"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_what_was_there(
    hub, model_folder, caplog, capfd, method, path, status, words
):
    push_model(model_folder, NAME)
    before = hub.repositories["model", NAME].state()
    (model_folder / "results.json").write_text("{}")
    # The client itself asks six times where that may help. A bad server sends the token back.
    hub.fail(method, path, status, f"no, Bearer {TOKEN} {'very ' * 99}", times=6, retry_after="7")
    (model_folder / "model.safetensors").write_bytes(different(model_folder / "model.safetensors"))
    said = refused(lambda: push_model(model_folder, NAME), OSError, words=words)
    assert "the Hub says: no, Bearer [token]" in said
    assert hub.repositories["model", NAME].state() == before
    hub.failures.clear()
    assert push_model(model_folder, NAME).is_new and files(hub)["results.json"] == b"{}"
    assert TOKEN not in caplog.text and TOKEN not in "".join(capfd.readouterr())


def test_a_repository_without_room_is_refused_in_one_line(hub, small_build):
    hub.room = 1000
    refused(lambda: push_dataset(small_build, NAME), OSError, words="room on the Hub .* exceeded your storage limit")
    assert published(hub, "dataset") == set()


@pytest.mark.parametrize(
    ("status", "message", "headers", "words"),
    [
        (403, "Private repository storage limit reached, please upgrade your plan", {}, "expected room on the Hub"),
        (429, "", {"ratelimit": '"api";r=0;t=55', "retry_after": "7"}, "asks to wait 55 s"),
        (429, "", {"ratelimit": '"api";r=9;t=55', "retry_after": "7"}, "asks to wait 7 s"),
        (429, "", {}, "asks to wait a while"),
        (422, "", {}, "the Hub refuses this .HTTP status 422"),
    ],
)
def test_a_refusal_is_told_as_the_hub_means_it(hub, model_folder, status, message, headers, words):
    hub.fail("POST", "/preupload/", status, message, times=6, **headers)
    refused(lambda: push_model(model_folder, NAME), OSError, words=words)


def test_a_card_that_the_hub_cannot_read_is_refused_in_one_line(hub, model_folder):
    (model_folder / "README.md").write_text("---\na: [\n---\n")
    refused(lambda: push_model(model_folder, NAME), words="Invalid metadata in README.md. - the metadata is no YAML")
    assert published(hub) == set()


def test_what_is_not_the_hub_is_told_in_one_line(hub, model_folder, monkeypatch):
    monkeypatch.setattr(hub_server._Handler, "_answer", lambda *_: (200, {}, b"<html>"))
    refused(lambda: push_model(model_folder, NAME), OSError, words="expected an answer of the Hub, got something else")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:port")
    refused(lambda: push_model(model_folder, NAME), OSError, words="the upload failed .InvalidURL")


def test_large_files_go_to_the_storage_of_the_real_hub_too(hub, model_folder, monkeypatch, tmp_path):
    storage = connect_xet(hub, monkeypatch, tmp_path / "xet")
    HfApi().create_repo(NAME, private=True)
    large = [(model_folder / name).read_bytes() for name in ("model.safetensors", "reconstruction.png")]
    # As if Xet had told: this Hub cannot look into what the client writes.
    hub.repositories["model", NAME].stored = {hashlib.sha256(content).hexdigest(): content for content in large}
    push_model(model_folder, NAME)
    assert published(hub) == MODEL | RESULTS and not [path for _, path in hub.requests if path.endswith("/batch")]
    assert sum(path.stat().st_size for path in storage.rglob("default.*")) > len(large[0]) / 2
    before = hub.repositories["model", NAME].state()
    (model_folder / "model.safetensors").write_bytes(different(model_folder / "model.safetensors"))
    hub.fail("GET", "/xet-write-token/", 403)
    refused(lambda: push_model(model_folder, NAME), OSError, words="the upload failed .*403 Forbidden.* run the same")
    assert hub.repositories["model", NAME].state() == before
    written = b"".join(path.read_bytes() for path in (tmp_path / "xet").rglob("*") if path.is_file())
    assert written and TOKEN.encode() not in written and XET_TOKEN.encode() not in written


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "expected a token of the Hub, found none; run `hf auth login`"),
        ("hf_two words", "letters, digits and signs"),
        ("hf_ümlaut", "letters, digits and signs"),
    ],
)
def test_a_token_that_cannot_be_sent_is_not(hub, model_folder, monkeypatch, token, words):
    connect(hub, monkeypatch, token)
    said = refused(lambda: push_model(model_folder, NAME), words=words)
    assert not hub.requests and (token is None or token not in said)


def test_other_people_write_nothing(hub, model_folder, monkeypatch):
    push_model(model_folder, NAME, private=False)
    before = hub.repositories["model", NAME].state()
    connect(hub, monkeypatch, OTHER_TOKEN)
    refused(lambda: push_model(model_folder, NAME, private=False), OSError, words="expected the right to write there")
    connect(hub, monkeypatch, "hf_" + "x" * 34)
    refused(lambda: push_model(model_folder, NAME), OSError, words="expected a token that the Hub knows")
    assert hub.repositories["model", NAME].state() == before
    connect(hub, monkeypatch, OTHER_TOKEN)
    (model_folder / "README.md").write_text("model=PATH_OR_NAME")
    assert push_model(model_folder, "name").repo_id == f"{STRANGER}/name"
    assert files(hub, name=f"{STRANGER}/name")["README.md"] == f"model={STRANGER}/name".encode()


def test_an_answer_that_is_lost_after_the_commit_does_no_harm(hub, model_folder):
    hub.fail("POST", "/commit/", None)
    refused(lambda: push_model(model_folder, NAME), OSError, words="lost the Hub .* run the same command again")
    assert published(hub) == MODEL | RESULTS and not push_model(model_folder, NAME).is_new


def test_an_upload_that_is_cut_at_any_moment_changes_nothing_and_is_completed_by_the_next(hub, small_build, tmp_path):
    larger = write(tmp_path / "larger", [recording(number, frames=200, neurons=40) for number in range(4)])
    hub.part_size = 20_000
    push_dataset(small_build, NAME)
    start, first = hub.received, copy.deepcopy(hub.repositories["dataset", NAME])
    push_dataset(larger, NAME)
    total, whole = hub.received - start, files(hub, "dataset")
    heard = []
    for moment in np.random.default_rng(0).uniform(0, 0.98 * total, 10).astype(int):
        hub.repositories["dataset", NAME] = copy.deepcopy(first)
        hub.requests.clear()
        hub.cut_after = hub.received + int(moment)
        refused(lambda: push_dataset(larger, NAME), OSError, words="expected a network that stays, lost the Hub")
        hub.cut_after = None
        assert hub.repositories["dataset", NAME].state() == first.state()
        heard.append(len(hub.requests))
        sent = set(hub.repositories["dataset", NAME].stored)
        hub.requests.clear()
        assert push_dataset(larger, NAME).is_new and files(hub, "dataset") == whole
        assert not [path for method, path in hub.requests if method == "PUT" and path.split("/")[5] in sent]
    assert len(set(heard)) > 3, f"always cut after as many requests: {heard}"


def test_whoever_pushes_meanwhile_is_not_overwritten(hub, model_folder, monkeypatch):
    push_model(model_folder, NAME)
    (model_folder / "results.json").write_text("mine")
    upload = HfApi.preupload_lfs_files

    def upload_slowly(self, *words, **options):
        monkeypatch.setattr(HfApi, "preupload_lfs_files", upload)
        self.create_commit(NAME, [CommitOperationAdd("results.json", b"theirs")], commit_message="meanwhile")
        return upload(self, *words, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", upload_slowly)
    refused(lambda: push_model(model_folder, NAME), OSError, words="someone else has pushed there meanwhile")
    assert files(hub)["results.json"] == b"theirs"
