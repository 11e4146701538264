"""What is published is what is on the list, in one commit or none, and a refusal is one line without the token."""

import copy
import json
import pickle
import shutil
import traceback

import numpy as np
import pytest
from hub_server import OTHER_TOKEN, OWNER, STRANGER, TOKEN, connect, serving_hub
from huggingface_hub import CommitOperationAdd, HfApi
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.pipeline_neurt import TASK, NeuronSignalClassificationPipeline
from neurt.publish import model_files, push_dataset, push_model
from small_builds import recording, write

NAME = f"{OWNER}/name"
CODE = {
    "configuration_neurt.py",
    "layers_neurt.py",
    "modeling_neurt.py",
    "processing_neurt.py",
    "signal_neurt.py",
}
MODEL = CODE | {"config.json", "model.safetensors", "processor_config.json"}
RESULTS = {"README.md", "results.json", "summary.md", "reconstruction.png", "reconstruction_errors.json"}


@pytest.fixture
def hub(monkeypatch):
    with serving_hub() as hub:
        connect(hub, monkeypatch)
        yield hub


@pytest.fixture
def model(tiny_model, tmp_path):
    """A folder as training leaves it, among what is nobody's business."""
    folder = tmp_path / "model"
    tiny_model().save_pretrained(folder)
    NeurtProcessor(window_length=40).save_pretrained(folder)
    for name in RESULTS:
        (folder / name).write_bytes(b"---\nlicense: apache-2.0\n---\n")
    for name in ("training_args.bin", "pytorch_model.bin", "training/step-1/state.pkl", ".cache/a", "raw.csv", "x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pickle.dumps("private"))
    (folder / ".env").write_text(f"HF_TOKEN={TOKEN}")
    return folder


@pytest.fixture
def small_build(tmp_path):
    folder = write(tmp_path / "build", [recording(number, frames=60) for number in range(2)], split={"r1": "test"})
    (folder / "data" / "train" / "raw.parquet").write_bytes(b"not of the manifest")
    (folder / "notes.txt").write_text("private")
    return folder


BUILD = {
    "README.md",
    "manifest.json",
    "data/train/r0.parquet",
    "data/test/r1.parquet",
    "units/train.parquet",
    "units/test.parquet",
}


def files(hub, kind="model", revision="main", name=NAME):
    """What the repository holds."""
    return dict(hub.repositories[kind, name].state()[revision][1])


def published(hub, kind="model", revision="main"):
    return set(files(hub, kind, revision)) - {".gitattributes"}


def refused(act, *kinds, words):
    """The one line in which something is refused, in which the token is nowhere, nor in what lies behind it."""
    with pytest.raises(kinds or ValueError, match=words) as error:
        act()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert TOKEN not in "".join(traceback.format_exception(error.value))
    return str(error.value)


def test_a_model_is_published_by_a_list_of_what_goes(hub, model):
    publication = push_model(model, NAME)
    repository = hub.repositories["model", NAME]
    assert published(hub) == MODEL | RESULTS == set(publication.sizes)
    assert repository.private and len(repository.branches["main"]) == 2, "the first commit is the Hub's own"
    assert all(files(hub)[name] == (model / name).read_bytes() for name in MODEL | RESULTS)
    assert publication.commit == repository.at("main").oid and publication.is_new
    assert publication.sizes["model.safetensors"] == (model / "model.safetensors").stat().st_size
    assert (
        f'from_pretrained("{NAME}", revision="{publication.commit}", trust_remote_code=True)' in publication.report()
    )


def test_all_that_training_leaves_is_published_but_its_checkpoints(pretrained, classifier):
    for folder in (pretrained, classifier):
        assert set(model_files(folder)) == {path.name for path in folder.iterdir()} - {"training"}


def test_the_card_beside_the_readme_of_the_project_is_the_card(model):
    (model / "model_card.md").write_text("the card")
    assert model_files(model)["README.md"] == "model_card.md" and "model_card.md" not in model_files(model)


def test_the_code_that_goes_is_what_the_configuration_names_and_that_imports(model):
    settings = json.loads((model / "config.json").read_text())
    settings["custom_pipelines"] = {"task": {"impl": "pipeline_neurt.Pipeline", "pt": ["AutoModel"]}}
    (model / "config.json").write_text(json.dumps(settings))
    (model / "pipeline_neurt.py").write_text("def later():\n    from .arrays_neurt import read\n")
    (model / "arrays_neurt.py").write_text("from .formats_neurt import (\n    npz,\n)\n")
    refused(lambda: model_files(model), words="expected formats_neurt.py, which pipeline_neurt.Pipeline needs")
    (model / "formats_neurt.py").write_text("import numpy")
    named = {name for name in model_files(model) if name.endswith(".py")}
    assert named == CODE | {"pipeline_neurt.py", "arrays_neurt.py", "formats_neurt.py"}


@pytest.mark.parametrize("opened_from_pipeline", [False, True])
def test_a_classifier_that_was_saved_without_its_pipeline_gets_it(hub, tiny_model, tmp_path, opened_from_pipeline):
    model, processor = NeurtForSequenceClassification(tiny_model().config), NeurtProcessor(window_length=40)
    whole, plain = tmp_path / "whole", tmp_path / "plain"
    NeuronSignalClassificationPipeline(model, processor=processor).save_pretrained(whole)
    if opened_from_pipeline:  # its configuration names the pipeline then
        model = NeurtForSequenceClassification.from_pretrained(whole)
    else:
        del model.config.custom_pipelines
    model.save_pretrained(plain)
    processor.save_pretrained(plain)
    push_model(plain, NAME)
    assert published(hub) == {*model_files(whole), "README.md"} and not (plain / "pipeline_neurt.py").exists()
    assert files(hub)["pipeline_neurt.py"] == (whole / "pipeline_neurt.py").read_bytes()
    assert json.loads(files(hub)["config.json"]) == json.loads((whole / "config.json").read_text())
    assert TASK in files(hub)["README.md"].decode()


@pytest.mark.parametrize(
    ("auto_map", "words"),
    [
        (None, "expected AutoConfig, AutoModel, AutoProcessor in the auto_map .* got AutoProcessor"),
        ({"AutoModel": "other/name--modeling_neurt.NeurtModel"}, "got other/name--modeling_neurt.NeurtModel"),
        ({"AutoModel": "../modeling_neurt.NeurtModel"}, "expected code of this folder"),
        ({"AutoModel": "model_of_neurt.NeurtModel"}, "expected model_of_neurt.py"),
        ({"AutoModel": ["modeling_neurt.NeurtModel"]}, "expected code of this folder"),
    ],
)
def test_a_configuration_must_name_code_that_goes_with_it(model, auto_map, words):
    settings = json.loads((model / "config.json").read_text())
    settings["auto_map"] = {} if auto_map is None else settings["auto_map"] | auto_map
    (model / "config.json").write_text(json.dumps(settings))
    refused(lambda: model_files(model), words=words)


def spoil_weights(model):
    (model / "model.safetensors").write_bytes(pickle.dumps("not safetensors"))


def point_shards_elsewhere(model):
    (model / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../other/model-00001-of-00001.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def link_the_card(model):
    (model / "README.md").unlink()
    (model / "README.md").symlink_to(model / ".env")


def leave_a_token(model):
    (model / "results.json").write_text(json.dumps({"command": f"login --token {OTHER_TOKEN}"}))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_weights, "model.safetensors: expected weights in safetensors"),
        (point_shards_elsewhere, "expected names of shards"),
        (link_the_card, "README.md: expected a file of this folder, got a link"),
        (leave_a_token, "results.json: expected no token in what is published"),
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors: expected weights in safetensors"),
        (lambda model: (model / "processor_config.json").unlink(), "no processor_config.json"),
        (lambda model: shutil.rmtree(model), "expected the folder of a model, got .*, where there is none"),
    ],
)
def test_what_is_no_whole_model_of_this_folder_is_refused_before_anything_is_sent(hub, model, spoil, words):
    spoil(model)
    assert OTHER_TOKEN not in refused(lambda: push_model(model, NAME), words=words)
    assert not hub.requests


def test_a_build_is_published_as_its_manifest_says(hub, small_build):
    publication = push_dataset(small_build, NAME, private=False)
    repository = hub.repositories["dataset", NAME]
    assert published(hub, "dataset") == BUILD == set(publication.sizes)
    assert not repository.private and len(repository.branches["main"]) == 2
    assert all(files(hub, "dataset")[name] == (small_build / name).read_bytes() for name in BUILD)
    assert "public" in publication.report() and "load_dataset" in publication.report()


def test_large_files_go_in_pieces(hub, small_build, monkeypatch):
    monkeypatch.setattr("neurt.publish._FILES_IN_A_PIECE", 4)
    push_dataset(small_build, NAME)
    asked = [path.rpartition("/")[2] for _, path in hub.requests if "preupload" in path or path.endswith("/batch")]
    # The first four files are the card, the manifest and two recordings, the others the units.
    assert asked == ["main", "batch", "main", "batch"] and published(hub, "dataset") == BUILD


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "as the manifest knows it, got a file that"),
        (lambda path: path.unlink(), "expected a file, got none"),
        (lambda path: (path.rename(path.with_suffix("")), path.symlink_to(path.with_suffix(""))), "got a link"),
    ],
)
def test_a_build_that_is_not_what_its_manifest_says_is_refused(hub, small_build, spoil, words):
    spoil(small_build / "units" / "test.parquet")
    refused(lambda: push_dataset(small_build, NAME), words=words)
    assert not hub.requests


def test_a_dry_run_says_what_would_go_and_asks_nobody(hub, model, small_build, monkeypatch):
    connect(hub, monkeypatch, token=None)
    report = push_model(model, NAME, dry_run=True).report().splitlines()
    assert {line.split()[0] for line in report[:-1]} == MODEL | RESULTS
    assert "README.md  28 bytes" in report and "would go to mia/name (private" in report[-1]
    assert report[-1].startswith("13 files, ") and not hub.requests
    assert len(push_dataset(small_build, NAME, dry_run=True).report().splitlines()) == len(BUILD) + 1
    refused(lambda: push_model(model, "a/b/c", dry_run=True), words="Repo id must be")


def test_the_same_again_makes_no_commit_and_something_new_makes_one(hub, model):
    first = push_model(model, NAME)
    again = push_model(model, NAME, private=False)
    assert (again.commit, again.is_new) == (first.commit, False) and "no new commit" in again.report()
    assert again.private and "(private)" in again.report(), "what is there stays as it is"
    (model / "results.json").write_text("{}")
    assert push_model(model, NAME).is_new and files(hub)["results.json"] == b"{}"
    assert len(hub.repositories["model", NAME].branches["main"]) == 3


def test_what_an_earlier_release_had_and_this_one_has_not_goes(hub, model, tiny_model):
    push_model(model, NAME)
    kept = {"notes.md", "LICENSE", "deep/summary.md"}
    others = [CommitOperationAdd(name, b"x") for name in (*kept, "training_args.bin")]
    HfApi().create_commit(NAME, others, commit_message="by hand, and by a Trainer")
    (model / "model.safetensors").unlink()
    (model / "summary.md").unlink()
    tiny_model().save_pretrained(model, max_shard_size="10KB")
    publication = push_model(model, NAME)
    assert sorted(publication.removed) == ["model.safetensors", "summary.md", "training_args.bin"]
    shards = {path.name for path in model.glob("model-*.safetensors")}
    expected = (MODEL | RESULTS | shards | {"model.safetensors.index.json"}) - set(publication.removed)
    assert len(shards) > 1 and published(hub) == expected | kept


def test_recordings_that_a_build_no_longer_has_go(hub, small_build, tmp_path):
    push_dataset(small_build, NAME)
    smaller = write(tmp_path / "smaller", [recording(0, frames=60)])
    assert push_dataset(smaller, NAME).removed == ["data/test/r1.parquet", "units/test.parquet"]
    assert published(hub, "dataset") == {name for name in BUILD if "test" not in name}


def test_nothing_goes_to_where_everyone_sees_it_unless_that_is_said(hub, model):
    push_model(model, NAME, private=False)
    before = hub.repositories["model", NAME].state()
    (model / "results.json").write_text("{}")
    refused(lambda: push_model(model, NAME), words="expected a private repository, got one that everyone sees")
    assert hub.repositories["model", NAME].state() == before
    assert not push_model(model, NAME, private=False).private


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_repository_of_something_else_is_left_alone(hub, model, small_build, kind):
    HfApi().create_repo(NAME, repo_type=kind, private=True)
    other = [CommitOperationAdd(name, b"x") for name in ("config.json", "data/train.csv")]
    HfApi().create_commit(NAME, other, repo_type=kind, commit_message="x")
    before = hub.repositories[kind, NAME].state()
    push, source = {"model": (push_model, model), "dataset": (push_dataset, small_build)}[kind]
    words = f"holds a NEuRT {kind}, got one with config.json, data/train.csv; choose another name"
    refused(lambda: push(source, NAME, revision="v1"), words=words)
    assert hub.repositories[kind, NAME].state() == before


def test_a_revision_is_a_branch_of_its_own(hub, model):
    push_model(model, NAME)
    before = files(hub)
    (model / "results.json").write_text("{}")
    for _ in range(2):
        push_model(model, NAME, revision="v2")
    assert files(hub) == before and files(hub, revision="v2")["results.json"] == b"{}"


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
def test_a_refusal_is_one_line_and_leaves_what_was_there(hub, model, caplog, capfd, method, path, status, words):
    push_model(model, NAME)
    before = hub.repositories["model", NAME].state()
    (model / "results.json").write_text("{}")
    # The client itself asks six times where that may help. A bad server sends the token back.
    hub.fail(method, path, status, f"no, Bearer {TOKEN} {'very ' * 99}", times=6, retry_after="7")
    (model / "model.safetensors").write_bytes(different(model / "model.safetensors"))
    said = refused(lambda: push_model(model, NAME), OSError, words=words)
    assert "the Hub says: no, Bearer [token]" in said
    assert hub.repositories["model", NAME].state() == before
    hub.failures.clear()
    assert push_model(model, NAME).is_new and files(hub)["results.json"] == b"{}"
    assert TOKEN not in caplog.text and TOKEN not in "".join(capfd.readouterr())


def different(weights):
    """The bytes of a file of weights with another last number."""
    content = weights.read_bytes()
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_repository_without_room_is_refused_in_one_line(hub, small_build):
    hub.room = 1000
    refused(lambda: push_dataset(small_build, NAME), OSError, words="room on the Hub .* exceeded your storage limit")
    assert published(hub, "dataset") == set()


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (None, "expected a token of the Hub, found none; run `hf auth login`"),
        ("hf_two words", "letters, digits and signs"),
        ("hf_ümlaut", "letters, digits and signs"),
    ],
)
def test_a_token_that_cannot_be_sent_is_not(hub, model, monkeypatch, token, words):
    connect(hub, monkeypatch, token)
    said = refused(lambda: push_model(model, NAME), words=words)
    assert not hub.requests and (token is None or token not in said)


def test_other_people_write_nothing(hub, model, monkeypatch):
    push_model(model, NAME, private=False)
    before = hub.repositories["model", NAME].state()
    connect(hub, monkeypatch, OTHER_TOKEN)
    refused(lambda: push_model(model, NAME, private=False), OSError, words="expected the right to write there")
    connect(hub, monkeypatch, "hf_" + "x" * 34)
    refused(lambda: push_model(model, NAME), OSError, words="expected a token that the Hub knows")
    assert hub.repositories["model", NAME].state() == before
    connect(hub, monkeypatch, OTHER_TOKEN)
    assert push_model(model, "name").repo_id == f"{STRANGER}/name"


def test_an_answer_that_is_lost_after_the_commit_does_no_harm(hub, model):
    hub.fail("POST", "/commit/", None)
    refused(lambda: push_model(model, NAME), OSError, words="lost the Hub .* run the same command again")
    assert published(hub) == MODEL | RESULTS and not push_model(model, NAME).is_new


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


def test_whoever_pushes_meanwhile_is_not_overwritten(hub, model, monkeypatch):
    push_model(model, NAME)
    (model / "results.json").write_text("mine")
    upload = HfApi.preupload_lfs_files

    def upload_slowly(self, *words, **options):
        monkeypatch.setattr(HfApi, "preupload_lfs_files", upload)
        self.create_commit(NAME, [CommitOperationAdd("results.json", b"theirs")], commit_message="meanwhile")
        return upload(self, *words, **options)

    monkeypatch.setattr(HfApi, "preupload_lfs_files", upload_slowly)
    refused(lambda: push_model(model, NAME), OSError, words="someone else has pushed there meanwhile")
    assert files(hub)["results.json"] == b"theirs"


def test_the_commands_say_what_they_did_or_why_not(hub, model, small_build, neurt):
    code, out, err = neurt("push-model", model, NAME, "--public", "--revision", "v1")
    assert code == 0 and "13 files" in out and "(public)" in out and TOKEN not in out + err
    code, out, _ = neurt("push-dataset", small_build, NAME, "--dry-run")
    assert code == 0 and "nothing was sent" in out and ("dataset", NAME) not in hub.repositories
    hub.fail("POST", "/commit/", 403, "read only")
    code, out, err = neurt("push-dataset", small_build, NAME)
    (line,) = [line for line in err.splitlines() if line.startswith("neurt:")]
    assert code == 2 and "right to write there" in line and "(the Hub says: read only)" in line
    assert TOKEN not in out + err
