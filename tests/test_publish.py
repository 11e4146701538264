"""What is published is what is on the list, in one commit or none."""

import json
import pickle
import shutil

import pytest
from hub_server import OTHER_TOKEN, TOKEN, connect
from huggingface_hub import CommitOperationAdd, HfApi
from neurt import NeurtForSequenceClassification, NeurtProcessor
from neurt.pipeline_neurt import TASK, NeuronSignalClassificationPipeline
from neurt.publish import model_files, push_dataset, push_model
from pushes import BUILD, CODE, MODEL, NAME, RESULTS, different, files, published, refused
from small_builds import recording, write


def test_a_model_is_published_by_a_list_of_what_goes(hub, model_folder):
    publication = push_model(model_folder, NAME)
    repository = hub.repositories["model", NAME]
    assert published(hub) == MODEL | RESULTS == set(publication.sizes)
    assert repository.private and len(repository.branches["main"]) == 2, "the first commit is the Hub's own"
    assert all(files(hub)[name] == (model_folder / name).read_bytes() for name in MODEL | RESULTS)
    assert publication.commit == repository.at("main").oid and publication.is_new
    assert publication.sizes["model.safetensors"] == (model_folder / "model.safetensors").stat().st_size
    assert (
        f'from_pretrained("{NAME}", revision="{publication.commit}", trust_remote_code=True)' in publication.report()
    )


def test_all_that_training_leaves_is_published_but_its_checkpoints(pretrained, classifier):
    for folder in (pretrained, classifier):
        assert set(model_files(folder)) == {path.name for path in folder.iterdir()} - {"training"}


def test_the_card_beside_the_readme_of_the_project_is_the_card(model_folder):
    (model_folder / "model_card.md").write_text("the card")
    assert model_files(model_folder)["README.md"] == "model_card.md" and "model_card.md" not in model_files(
        model_folder
    )


def test_the_code_that_goes_is_what_the_configuration_names_and_that_imports(model_folder):
    settings = json.loads((model_folder / "config.json").read_text())
    settings["custom_pipelines"] = {"task": {"impl": "pipeline_neurt.Pipeline", "pt": ["AutoModel"]}}
    (model_folder / "config.json").write_text(json.dumps(settings))
    (model_folder / "pipeline_neurt.py").write_text("def later():\n    from .arrays_neurt import read\n")
    (model_folder / "arrays_neurt.py").write_text("from .formats_neurt import (\n    npz,\n)\n")
    refused(lambda: model_files(model_folder), words="expected formats_neurt.py, which pipeline_neurt.Pipeline needs")
    (model_folder / "formats_neurt.py").write_text("import numpy")
    named = {name for name in model_files(model_folder) if name.endswith(".py")}
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
def test_a_configuration_must_name_code_that_goes_with_it(model_folder, auto_map, words):
    settings = json.loads((model_folder / "config.json").read_text())
    settings["auto_map"] = {} if auto_map is None else settings["auto_map"] | auto_map
    (model_folder / "config.json").write_text(json.dumps(settings))
    refused(lambda: model_files(model_folder), words=words)


def spoil_weights(model_folder):
    (model_folder / "model.safetensors").write_bytes(pickle.dumps("not safetensors"))


def point_shards_elsewhere(model_folder):
    (model_folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../other/model-00001-of-00001.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))


def link_the_card(model_folder):
    (model_folder / "README.md").unlink()
    (model_folder / "README.md").symlink_to(model_folder / ".env")


def leave_a_token(model_folder, token=OTHER_TOKEN):
    (model_folder / "results.json").write_text(json.dumps({"command": f"login --token {token}"}))


def spoil_the_index(model_folder):
    (model_folder / "model.safetensors").unlink()
    (model_folder / "model.safetensors.index.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_weights, "model.safetensors: expected weights in safetensors"),
        (point_shards_elsewhere, "expected names of shards"),
        (spoil_the_index, "expected names of shards"),
        (
            lambda folder: (folder / "README.md").write_bytes("µ".encode("latin-1")),
            "README.md: expected text in UTF-8, got something else",
        ),
        (link_the_card, "README.md: expected a file of this folder, got a link"),
        (leave_a_token, "results.json: expected no token in what is published"),
        (
            lambda folder: leave_a_token(folder, f"hf_oauth_{'x.Y-' * 9}"),
            "results.json: expected no token in what is",
        ),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "model.safetensors: expected weights in safetensors",
        ),
        (lambda folder: (folder / "processor_config.json").unlink(), "no processor_config.json"),
        (
            lambda folder: shutil.rmtree(folder),
            "expected the folder of a model, got .*, where there is none",
        ),
    ],
)
def test_what_is_no_whole_model_of_this_folder_is_refused_before_anything_is_sent(hub, model_folder, spoil, words):
    spoil(model_folder)
    assert OTHER_TOKEN not in refused(lambda: push_model(model_folder, NAME), words=words)
    assert not hub.requests


def test_a_build_is_published_as_its_manifest_says(hub, small_build):
    publication = push_dataset(small_build, NAME, private=False)
    repository = hub.repositories["dataset", NAME]
    assert published(hub, "dataset") == BUILD == set(publication.sizes)
    assert not repository.private and len(repository.branches["main"]) == 2
    assert all(files(hub, "dataset")[name] == (small_build / name).read_bytes() for name in BUILD - {"README.md"})
    card = (small_build / "README.md").read_text().replace("PATH_OR_NAME", NAME)
    assert files(hub, "dataset")["README.md"].decode() == card and f'load_dataset("{NAME}", "units")' in card
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


def test_a_dry_run_says_what_would_go_and_asks_nobody(hub, model_folder, small_build, monkeypatch):
    connect(hub, monkeypatch, token=None)
    report = push_model(model_folder, NAME, dry_run=True).report().splitlines()
    assert {line.split()[0] for line in report[:-1]} == MODEL | RESULTS
    assert "README.md  28 bytes" in report and "would go to mia/name (private" in report[-1]
    assert report[-1].startswith("13 files, ") and not hub.requests
    assert len(push_dataset(small_build, NAME, dry_run=True).report().splitlines()) == len(BUILD) + 1
    refused(lambda: push_model(model_folder, "a/b/c", dry_run=True), words="Repo id must be")


def test_the_shipped_weights_are_published_by_that_word(neurt):
    code, out, _ = neurt("push-model", "shipped", NAME, "--dry-run")
    assert code == 0 and {line.split()[0] for line in out.splitlines()[:-1]} >= MODEL


def test_the_same_again_makes_no_commit_and_something_new_makes_one(hub, model_folder):
    first = push_model(model_folder, NAME)
    again = push_model(model_folder, NAME, private=False)
    assert (again.commit, again.is_new) == (first.commit, False) and "no new commit" in again.report()
    assert again.private and "(private)" in again.report(), "what is there stays as it is"
    (model_folder / "results.json").write_text("{}")
    assert push_model(model_folder, NAME).is_new and files(hub)["results.json"] == b"{}"
    assert len(hub.repositories["model", NAME].branches["main"]) == 3


def test_what_an_earlier_release_had_and_this_one_has_not_goes(hub, model_folder, tiny_model):
    push_model(model_folder, NAME)
    kept = {"notes.md", "LICENSE", "deep/summary.md"}
    others = [CommitOperationAdd(name, b"x") for name in (*kept, "training_args.bin")]
    HfApi().create_commit(NAME, others, commit_message="by hand, and by a Trainer")
    (model_folder / "model.safetensors").unlink()
    (model_folder / "summary.md").unlink()
    tiny_model().save_pretrained(model_folder, max_shard_size="10KB")
    publication = push_model(model_folder, NAME)
    assert sorted(publication.removed) == ["model.safetensors", "summary.md", "training_args.bin"]
    shards = {path.name for path in model_folder.glob("model-*.safetensors")}
    expected = (MODEL | RESULTS | shards | {"model.safetensors.index.json"}) - set(publication.removed)
    assert len(shards) > 1 and published(hub) == expected | kept


def test_recordings_that_a_build_no_longer_has_go(hub, small_build, tmp_path):
    push_dataset(small_build, NAME)
    smaller = write(tmp_path / "smaller", [recording(0, frames=60)])
    assert push_dataset(smaller, NAME).removed == ["data/test/r1.parquet", "units/test.parquet"]
    assert published(hub, "dataset") == {name for name in BUILD if "test" not in name}


def test_nothing_goes_to_where_everyone_sees_it_unless_that_is_said(hub, model_folder):
    push_model(model_folder, NAME, private=False)
    before = hub.repositories["model", NAME].state()
    (model_folder / "results.json").write_text("{}")
    refused(lambda: push_model(model_folder, NAME), words="expected a private repository, got one that everyone sees")
    assert hub.repositories["model", NAME].state() == before
    assert not push_model(model_folder, NAME, private=False).private


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_repository_of_something_else_is_left_alone(hub, model_folder, small_build, kind):
    HfApi().create_repo(NAME, repo_type=kind, private=True)
    other = [CommitOperationAdd(name, b"x") for name in ("config.json", "data/train.csv")]
    HfApi().create_commit(NAME, other, repo_type=kind, commit_message="x")
    before = hub.repositories[kind, NAME].state()
    push, source = {"model": (push_model, model_folder), "dataset": (push_dataset, small_build)}[kind]
    words = f"holds a NEuRT {kind}, got one with config.json, data/train.csv; choose another name"
    refused(lambda: push(source, NAME, revision="v1"), words=words)
    assert hub.repositories[kind, NAME].state() == before


def test_a_revision_is_a_branch_of_its_own(hub, model_folder):
    push_model(model_folder, NAME)
    before = files(hub)
    (model_folder / "results.json").write_text("{}")
    for _ in range(2):
        push_model(model_folder, NAME, revision="v2")
    assert files(hub) == before and files(hub, revision="v2")["results.json"] == b"{}"


def test_a_list_of_what_to_ignore_in_the_repository_hides_nothing_that_goes(hub, model_folder):
    push_model(model_folder, NAME)
    ignored = CommitOperationAdd(".gitignore", b"*.safetensors\nresults.json")
    HfApi().create_commit(NAME, [ignored], commit_message="by hand")
    (model_folder / "results.json").write_text("{}")
    (model_folder / "model.safetensors").write_bytes(different(model_folder / "model.safetensors"))
    assert push_model(model_folder, NAME).is_new
    for name in ("results.json", "model.safetensors"):
        assert files(hub)[name] == (model_folder / name).read_bytes()


def test_the_commands_say_what_they_did_or_why_not(hub, model_folder, small_build, neurt):
    code, out, err = neurt("push-model", model_folder, NAME, "--public", "--revision", "v1")
    assert code == 0 and "13 files" in out and "(public)" in out and TOKEN not in out + err
    code, out, _ = neurt("push-dataset", small_build, NAME, "--dry-run")
    assert code == 0 and "nothing was sent" in out and ("dataset", NAME) not in hub.repositories
    hub.fail("POST", "/commit/", 403, "read only")
    code, out, err = neurt("push-dataset", small_build, NAME)
    (line,) = [line for line in err.splitlines() if line.startswith("neurt:")]
    assert code == 2 and "right to write there" in line and "(the Hub says: read only)" in line
    assert TOKEN not in out + err
