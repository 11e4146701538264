"""Publish a model or a data set on the Hub: what is on a short list of files, in one commit.

    push_model("MODEL", "USER/NAME")
    push_dataset("BUILD", "USER/NAME", revision="v2", dry_run=True)

The list is of what goes, not of what stays: no pickle, cache, checkpoint or recording can slip through. Large files go
first, in pieces, and stay invisible; the commit that names all of them comes last. So an upload that ends halfway
leaves the repository as it was, and the next one sends only what is missing. `Trainer.push_to_hub` sends its whole
folder instead, with a pickle of its arguments (`training_args.bin`): push what `Trainer.save_model` left with this. A
classifier gets its pipeline, which neither it nor `save_pretrained` leaves.
"""

import fnmatch
import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi, ModelInfo
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open
from tqdm import tqdm
from transformers.dynamic_module_utils import get_relative_import_files

from .cards import CARD, EXPLANATION, is_written, model_card, named
from .dataset_scripts.build_manifest import MANIFEST, read_manifest
from .dataset_scripts.wording import byte_size, count, some
from .hub_errors import in_one_line, require_token
from .inference import is_classifier
from .loading import load_processor
from .pipeline_neurt import TASK

# The root of the project is a model folder whose README is about the project: there the card has a name of its own.
_CARD_BESIDE_README = "model_card.md"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_CONFIG = "config.json"
_SETTINGS = (_CONFIG, "processor_config.json")
_PIPELINE = "pipeline_neurt.py"
_TASKS = {
    TASK: {"impl": "pipeline_neurt.NeuronSignalClassificationPipeline", "pt": ["AutoModelForSequenceClassification"]}
}
_AUTO_CLASSES = {"AutoConfig", "AutoModel", "AutoProcessor"}
_RESULTS = (
    "reconstruction_errors.json",
    "results.json",
    "summary.md",
    "reconstruction.png",
    "subjects.png",
    EXPLANATION,
)
_TERMS = ("LICENSE", "CITATION.cff")
# What an earlier release, or a Trainer, may have left in the repository, and what would be read instead of the new.
_REPLACED = {
    "model": ("model*.safetensors", _INDEX, "*_neurt.py", "training_args.bin", *_RESULTS),
    "dataset": ("data/*.parquet", "units/*.parquet"),
}
# Which file shows that a repository is one of ours, and what any repository may hold.
_MARK = {"model": "modeling_neurt.py", "dataset": MANIFEST}
_OF_ANY = {".gitattributes", ".gitignore", CARD, *_TERMS}
# Addresses to upload to are given for a whole piece, and do not last for ever.
_FILES_IN_A_PIECE = 64
_TEXT = {".md", ".json", ".py", ".cff", ""}
_TOKEN = re.compile(rb"hf_([A-Za-z0-9]{30,}|(jwt|oauth)_[\w.-]{30,})")
# A .gitignore in the repository would leave files out without a word.
_IGNORED = "# nothing: what goes is on the list"


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    Args:
        kind: "model" or "dataset".
        repo_id: Owner and name.
        sizes: Bytes of each file.
        private: Whether only the owner sees it.
        commit: The commit that has the files; None if nothing was sent.
        url: Where to look at it.
        is_new: Whether this made the commit; False where the repository had exactly this before.
        removed: Files of an earlier release that this one has not.
    """

    kind: str
    repo_id: str
    sizes: Mapping[str, int]
    private: bool
    commit: str | None = None
    url: str = ""
    is_new: bool = False
    removed: Sequence[str] = ()

    def report(self) -> str:
        """Lines that say what went, how large it is, and how it is opened."""
        seen = "private" if self.private else "public"
        total = f"{count(len(self.sizes), 'file')}, {byte_size(sum(self.sizes.values()))}"
        if self.commit is None:
            lines = [f"{name}  {byte_size(size)}" for name, size in self.sizes.items()]
            return "\n".join([*lines, f"{total}: would go to {self.repo_id} ({seen}); nothing was sent"])
        lines = [f"removed: {name}" for name in self.removed]
        done = "a new commit in" if self.is_new else "the same as before, no new commit, in"
        opened = "from_pretrained" if self.kind == "model" else "load_dataset"
        trust = ", trust_remote_code=True" if self.kind == "model" else ""
        lines += [f"{total}: {done} {self.repo_id} ({seen})", f"see {self.url}"]
        return "\n".join([*lines, f'open it with {opened}("{self.repo_id}", revision="{self.commit}"{trust})'])


def push_model(
    folder: Path, repo_id: str, *, private: bool = True, revision: str | None = None, dry_run: bool = False
) -> Publication:
    """Publish a model folder, such as `neurt pretrain` makes, as one commit in a repository of models.

    What goes: weights, both configurations, the code that they name with all that it imports, the card, results and
    figures. A classifier that was saved without its pipeline gets it. A card that nobody wrote is filled from the
    results; in any card the repository's name takes the place of PATH_OR_NAME. Weights, code and results of an earlier
    release that are not in this one are removed.

    Args:
        folder: The model.
        repo_id: Owner and name, "USER/NAME"; without an owner the user's own.
        private: Whether the repository must be private, which a new one then is. False makes a new one public, and
            takes one that is there as it is.
        revision: Branch, made if it is new; "main" by default.
        dry_run: Only say what would go; needs neither network nor token.

    Raises:
        ValueError: If the folder is no whole NEuRT model, a file is a link or has a token in it, there is no token to
            log in with, or the repository holds something else or is public without being meant to be.
        OSError: If the Hub refuses, or the network goes away; nothing is half-published then.
    """
    folder, names = Path(folder), model_files(folder)
    additions = [*_additions(folder, names), *_pipeline(folder, names), _model_card(folder, names.get(CARD))]
    # Of two of a name the later one goes: the file was checked, and is completed here.
    unique = {addition.path_in_repo: addition for addition in additions}
    return _publish("model", repo_id, list(unique.values()), private, revision, dry_run)


def push_dataset(
    build: Path, repo_id: str, *, private: bool = True, revision: str | None = None, dry_run: bool = False
) -> Publication:
    """Publish a Parquet build as one commit in a repository of data sets.

    What goes: card, manifest and the files that the manifest names, after a check of their digests.

    Args:
        build: A folder that `write_build` made.
        repo_id: As for `push_model`, like the other arguments.
        private: Whether the repository must be private.
        revision: Branch, made if it is new.
        dry_run: Only check, and say what would go.

    Raises:
        ValueError: As `push_model`, and if a file is not what the manifest says.
        OSError: As `push_model`.
    """
    manifest = read_manifest(build)
    digests = {entry["path"]: entry["sha256"] for entry in [*manifest["files"], *manifest["units"]]}
    additions = _additions(Path(build), {name: name for name in (CARD, MANIFEST, *digests)})
    for addition in tqdm(additions, desc="checked", unit="file"):
        # The client takes this digest for the upload, so what goes is what was checked.
        found = addition.upload_info.sha256.hex()
        if digests.get(addition.path_in_repo, found) != found:
            raise ValueError(
                f"{build}: expected {addition.path_in_repo} as the manifest knows it, got a file that differs; "
                "import the recordings again"
            )
    return _publish("dataset", repo_id, additions, private, revision, dry_run)


def model_files(folder: Path) -> dict[str, str]:
    """Which files of a model folder are published: the name in the repository, and the name in the folder.

    Raises:
        ValueError: If the folder is no NEuRT model, or its configuration names code that is not there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"expected the folder of a model, got {folder}, where there is none")
    load_processor(folder)
    settings = [json.loads((folder / name).read_text(encoding="utf-8")) for name in _SETTINGS]
    weights = _weights(folder)
    for name in weights:
        if name != _INDEX:
            _require_safetensors(folder / name)
    names = [*_SETTINGS, *weights, *_code(folder, settings)]
    names += [name for name in (*_RESULTS, *_TERMS) if (folder / name).exists()]
    card = next((name for name in (_CARD_BESIDE_README, CARD) if (folder / name).exists()), None)
    return {name: name for name in names} | ({CARD: card} if card else {})


def _model_card(folder: Path, name: str | None) -> CommitOperationAdd:
    """The card that a person wrote, else one filled anew: an explanation may have come since the training."""
    written = name is not None and is_written(folder / name)
    return CommitOperationAdd(CARD, (folder / name).read_bytes() if written else model_card(folder).encode())


def _pipeline(folder: Path, names: Iterable[str]) -> list[CommitOperationAdd]:
    """What a classifier lacks of its pipeline: the code, and the words in its configuration that name it."""
    if not is_classifier(folder):
        return []
    code = [] if _PIPELINE in names else [CommitOperationAdd(_PIPELINE, Path(__file__).with_name(_PIPELINE))]
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    tasks = config.get("custom_pipelines", {})
    if TASK in tasks:
        return code
    text = json.dumps(config | {"custom_pipelines": {**tasks, **_TASKS}}, indent=2) + "\n"
    return [*code, CommitOperationAdd(_CONFIG, text.encode())]


def _weights(folder: Path) -> list[str]:
    """One file, or the shards and what says which weight is in which."""
    if (folder / _WEIGHTS).exists() or not (folder / _INDEX).exists():
        return [_WEIGHTS]
    try:
        shards = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        known = all(_SHARD.fullmatch(name) for name in shards)
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise ValueError(f"{folder / _INDEX}: expected names of shards of weights, got others; save the model again")
    return [_INDEX, *shards]


def _require_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: expected weights in safetensors, got none: {error}") from error


def _code(folder: Path, settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """The files with the code that the configurations name, and all that these import of each other.

    Our own pipeline may be missing: `_pipeline` adds it.
    """
    try:
        named = {name: str(each["auto_map"][name]) for each in settings for name in each.get("auto_map", ())}
        pipelines = {str(task["impl"]) for each in settings for task in each.get("custom_pipelines", {}).values()}
        if not (folder / _PIPELINE).exists():
            pipelines -= {_TASKS[TASK]["impl"]}
    except (KeyError, TypeError, AttributeError):
        named, pipelines = {}, set()
    if not _AUTO_CLASSES <= named.keys():
        raise ValueError(
            f"{folder}: expected {', '.join(sorted(_AUTO_CLASSES))} in the auto_map of its configurations, got "
            f"{', '.join(sorted(named)) or 'none'}; save the model again with neurt"
        )
    return sorted({name for reference in {*named.values(), *pipelines} for name in _modules(folder, reference)})


def _modules(folder: Path, reference: str) -> list[str]:
    """The files of "module.Class" and of what it imports."""
    module, _, name = reference.partition(".")
    if not (module.isidentifier() and name.isidentifier()):
        raise ValueError(
            f"{folder}: expected code of this folder in its configurations, as in modeling_neurt.NeurtModel, got "
            f"{reference}; save the model again with neurt"
        )
    try:
        paths = [folder / f"{module}.py", *get_relative_import_files(folder / f"{module}.py")]
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise ValueError(
            f"{folder}: expected {missing}, which {reference} needs, got no such file; save the model again with neurt"
        ) from error
    return [Path(path).name for path in paths]


def _additions(folder: Path, names: Mapping[str, str]) -> list[CommitOperationAdd]:
    """What goes into the commit, after a check that each file is whole, here, and has no token in it."""
    return [CommitOperationAdd(name, _checked(folder, place).absolute()) for name, place in names.items()]


def _checked(folder: Path, name: str) -> Path:
    path = folder / name
    above = [folder / part for part in PurePosixPath(name).parents if part.name]
    if any(each.is_symlink() for each in (path, *above)):
        raise ValueError(f"{path}: expected a file of this folder, got a link; put a copy of the file in its place")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, got none; make the folder again, or take another")
    if path.suffix in _TEXT and _TOKEN.search(path.read_bytes()):
        raise ValueError(
            f"{path}: expected no token in what is published, got something that looks like one; take it out, and "
            "make a new token if that one was real"
        )
    return path


def _publish(
    kind: str,
    repo_id: str,
    additions: Sequence[CommitOperationAdd],
    private: bool,
    revision: str | None,
    dry_run: bool,
) -> Publication:
    """Send large files, then the commit, on top of what was there when this began."""
    validate_repo_id(repo_id)
    sizes = _sizes(_with_name(additions, repo_id))
    if dry_run:
        return Publication(kind, repo_id, sizes, private)
    token = require_token()
    hub = HfApi(library_name="neurt", library_version=importlib.metadata.version("neurt"), token=token)
    with in_one_line(repo_id, token):
        repo_id, before = _target(hub, kind, repo_id, private, revision)
        additions = _with_name(additions, repo_id)
        sizes, there = _sizes(additions), _files(hub, kind, repo_id, before)
        removed = [name for name in there if name not in sizes and _is_replaced(kind, name)]
        for piece in _pieces(additions):
            hub.preupload_lfs_files(repo_id, piece, repo_type=kind, revision=revision, gitignore_content=_IGNORED)
        commit = hub.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(name) for name in removed)],
            repo_type=kind,
            revision=revision,
            commit_message=f"Publish this {kind} with neurt {importlib.metadata.version('neurt')}",
            parent_commit=before.sha,
        )
    is_new = commit.oid != before.sha
    return Publication(kind, repo_id, sizes, before.private, commit.oid, commit.commit_url, is_new, removed)


def _with_name(additions: Iterable[CommitOperationAdd], repo_id: str) -> list[CommitOperationAdd]:
    """The same with the repository's whole name in the card, which is known once there is a repository.

    Raises:
        ValueError: If the card is no text.
    """
    others = [addition for addition in additions if addition.path_in_repo != CARD]
    (card,) = (addition for addition in additions if addition.path_in_repo == CARD)
    try:
        with card.as_file() as file:
            text = named(file.read().decode(), repo_id)
    except UnicodeDecodeError as error:
        raise ValueError(f"{CARD}: expected text in UTF-8, got something else; save it as UTF-8") from error
    return [CommitOperationAdd(CARD, text.encode()), *others]


def _sizes(additions: Iterable[CommitOperationAdd]) -> dict[str, int]:
    return {addition.path_in_repo: addition.upload_info.size for addition in additions}


def _target(
    hub: HfApi, kind: str, repo_id: str, private: bool, revision: str | None
) -> tuple[str, ModelInfo | DatasetInfo]:
    """The repository and what its branch is at, both made if they are new; one not meant for this stays as it is."""
    repo_id = hub.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True).repo_id
    before = hub.repo_info(repo_id, repo_type=kind)
    others = sorted(set(_files(hub, kind, repo_id, before)) - _OF_ANY)
    if others and _MARK[kind] not in others:
        raise ValueError(
            f"{repo_id}: expected a repository that is new, empty or holds a NEuRT {kind}, got one with "
            f"{some(others)}; choose another name"
        )
    if private and not before.private:
        raise ValueError(
            f"{repo_id}: expected a private repository, got one that everyone sees; say --public (private=False) to "
            "publish there"
        )
    if revision is None:
        return repo_id, before
    hub.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
    return repo_id, hub.repo_info(repo_id, repo_type=kind, revision=revision)


def _files(hub: HfApi, kind: str, repo_id: str, at: ModelInfo | DatasetInfo) -> list[str]:
    return hub.list_repo_files(repo_id, repo_type=kind, revision=at.sha)


def _is_replaced(kind: str, name: str) -> bool:
    is_ours = any(fnmatch.fnmatchcase(name, pattern) for pattern in _REPLACED[kind])
    return is_ours and (kind == "dataset" or "/" not in name)


def _pieces(additions: Sequence[CommitOperationAdd]) -> Iterator[Sequence[CommitOperationAdd]]:
    for start in range(0, len(additions), _FILES_IN_A_PIECE):
        yield additions[start : start + _FILES_IN_A_PIECE]
