"""Parity with the original, and the refusals of the converter."""

import importlib.util
import itertools
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from neurt import cli
from neurt.convert_checkpoint import build_model, convert_checkpoint, name_table, read_options, read_state_dict
from neurt.processing_neurt import NeurtProcessor
from transformers import AutoModelForPreTraining, AutoModelForSequenceClassification

REPOSITORY = Path(__file__).resolve().parents[1]
CHECKPOINTS = Path(os.environ.get("NEURT_CHECKPOINTS", REPOSITORY.parent / "shared" / "checkpoints"))
TOLERANCE = 1e-5  # largest absolute difference, fp32
SMALL = {"hidden": 32, "hidden_ff": 64, "feature_num": 5, "n_layers": 3, "n_heads": 4, "seq_len": 512}
OPTIONS = [
    {
        "emb_norm": emb_norm,
        "use_parametr_sharing_strategy": shared,
        "block_embedding_mode": block_mode,
        "embedding_mode": mode,
    }
    for emb_norm, shared, block_mode, mode in itertools.product(
        (False, True), (False, True), ("not_hidden", "hidden"), ("last", "sum_all")
    )
]
DEFAULTS = {**SMALL, **OPTIONS[0]}

spec = importlib.util.spec_from_file_location("original_neurt", REPOSITORY / "tests" / "original_neurt.py")
original_neurt = importlib.util.module_from_spec(spec)
spec.loader.exec_module(original_neurt)
ORIGINALS = {"reconstruction": original_neurt.OriginalNeurt, "classifier": original_neurt.OriginalClassifier}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small matrices: on a busy machine, threads that wait for each other take twenty times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_original(kind: str, model_cfg: dict) -> torch.nn.Module:
    """An original whose every parameter is random: unit gammas and zero biases would hide a swap."""
    generator = torch.Generator().manual_seed(7)
    original = ORIGINALS[kind](model_cfg).eval()
    for name, parameter in original.named_parameters():
        centre = 1.0 if name.endswith("gamma") else 0.0
        parameter.data = centre + 0.3 * torch.randn(parameter.shape, generator=generator)
    return original


def write_original(folder: Path, original: torch.nn.Module, model_cfg: dict) -> tuple[Path, Path]:
    """Files as the original writes them: data parallelism puts `module.` before each name."""
    checkpoint, config = folder / "model.pth", folder / "model_cfg.json"
    torch.save({f"module.{name}": tensor for name, tensor in original.state_dict().items()}, checkpoint)
    config.write_text(json.dumps(model_cfg))
    return checkpoint, config


def assert_same(ours: torch.Tensor, theirs: torch.Tensor):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= TOLERANCE


def random_inputs(frames: int) -> torch.Tensor:
    return torch.rand(3, frames, 5, generator=torch.Generator().manual_seed(frames))


@torch.no_grad()
def outputs_of(model: torch.nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every output of a converted model that the original has too."""
    outputs = model(inputs, output_hidden_states=True)
    named = {f"hidden_states.{i}": states for i, states in enumerate(outputs.hidden_states)}
    named["embedding"] = model.neurt(inputs).embeddings
    for name in ("reconstruction", "logits", "pooling_weights"):
        if name in outputs:
            named[name] = outputs[name]
    return named


@torch.no_grad()
def outputs_of_original(original: torch.nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    outputs = original(inputs)
    named = {f"hidden_states.{i}": states for i, states in enumerate(outputs["hidden_states"])}
    named["embedding"] = outputs["embedding"]
    heads = ("logits", "pooling_weights") if "logits" in outputs else ("reconstruction",)
    return {**named, **{name: outputs[name] for name in heads}}


def assert_parity(model: torch.nn.Module, original: torch.nn.Module, inputs: torch.Tensor):
    ours, theirs = outputs_of(model, inputs), outputs_of_original(original, inputs)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert_same(ours[name], expected)


def root_mean_square_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return (got.double() - exact).square().mean().sqrt().item()


@pytest.mark.parametrize("kind", ORIGINALS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_every_combination_of_options_computes_what_the_original_computes(tmp_path, kind, options):
    model_cfg = {**SMALL, **options}
    original = random_original(kind, model_cfg)
    checkpoint, config = write_original(tmp_path, original, model_cfg)
    conversion = build_model(read_state_dict(checkpoint), read_options(config))
    assert conversion.kind == kind
    for frames in (512, 97):
        assert_parity(conversion.model, original, random_inputs(frames))


def published(kind: str) -> tuple[Path, Path, torch.nn.Module]:
    """Checkpoint, its model_cfg.json, and the original that was loaded from them."""
    folder = CHECKPOINTS / {"reconstruction": "recon", "classifier": "classifier"}[kind]
    checkpoint, config = folder / "model_epoch_20.pth", folder / "model_cfg.json"
    if not checkpoint.is_file():
        pytest.skip(f"no published checkpoint in {CHECKPOINTS}")
    original = ORIGINALS[kind](json.loads(config.read_text())).eval()
    original.load_state_dict(read_state_dict(checkpoint), strict=True)
    return checkpoint, config, original


@pytest.mark.parametrize(
    ("kind", "auto_class", "parameters"),
    [
        ("reconstruction", AutoModelForPreTraining, 860_293),
        ("classifier", AutoModelForSequenceClassification, 860_679),
    ],
)
def test_published_checkpoints_compute_what_the_original_computes(tmp_path, kind, auto_class, parameters):
    # In float64, because the trained weights amplify rounding: in float32 the original strays up to 4e-4 from itself.
    checkpoint, config, original = published(kind)
    assert sum(parameter.numel() for parameter in original.parameters()) == parameters
    convert_checkpoint(checkpoint, config, tmp_path / "converted")
    model = auto_class.from_pretrained(tmp_path / "converted").double()
    for frames in (512, 97):
        assert_parity(model, original.double(), random_inputs(frames).double())


@pytest.mark.parametrize("kind", ORIGINALS)
def test_published_checkpoints_in_float32_are_as_exact_as_the_original(kind):
    checkpoint, config, original = published(kind)
    model = build_model(read_state_dict(checkpoint), read_options(config)).model
    for frames in (512, 97):
        inputs = random_inputs(frames)
        ours, theirs = outputs_of(model, inputs), outputs_of_original(original.float(), inputs)
        for name, exact in outputs_of_original(original.double(), inputs.double()).items():
            allowed = max(2 * root_mean_square_error(theirs[name], exact), TOLERANCE)
            assert root_mean_square_error(ours[name], exact) <= allowed, name


def test_attention_maps_are_those_of_the_original(tmp_path):
    original = random_original("reconstruction", DEFAULTS)
    checkpoint, config = write_original(tmp_path, original, DEFAULTS)
    model = build_model(read_state_dict(checkpoint), read_options(config)).model
    model.set_attn_implementation("eager")
    inputs = random_inputs(97)
    with torch.no_grad():
        attentions, expected = model(inputs, output_attentions=True).attentions, original(inputs)["attentions"]
    for ours, theirs in zip(attentions, expected, strict=True):
        assert_same(ours, theirs)


def test_converted_classifier_names_its_classes_and_lists_the_dropped_decoder(tmp_path):
    checkpoint, config = write_original(tmp_path, random_original("classifier", DEFAULTS), DEFAULTS)
    conversion = convert_checkpoint(checkpoint, config, tmp_path / "converted")
    assert conversion.dropped == ("bert.decoder.weight", "bert.decoder.bias")
    saved = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert saved["id2label"] == {"0": "WT", "1": "5xFAD"}
    assert saved["architectures"] == ["NeurtForSequenceClassification"]
    assert (tmp_path / "converted" / "model.safetensors").is_file()


def test_converted_folder_holds_the_processing_that_is_known_of_the_original(tmp_path):
    model_cfg = {**DEFAULTS, "seq_len": 256}
    checkpoint, config = write_original(tmp_path, random_original("reconstruction", model_cfg), model_cfg)
    conversion = convert_checkpoint(checkpoint, config, tmp_path / "converted")
    processor = NeurtProcessor.from_pretrained(tmp_path / "converted")
    assert (processor.normalization, processor.window_length, processor.sampling_rate) == ("minmax", 256, None)
    assert "radius was never published, 0.3 (quantile) stands in" in conversion.summary()


def test_name_table_covers_every_parameter_of_the_original_once():
    for kind, options in itertools.product(ORIGINALS, OPTIONS):
        names = name_table(kind, SMALL["n_layers"], options["use_parametr_sharing_strategy"])
        assert set(names) == set(ORIGINALS[kind]({**SMALL, **options}).state_dict())
        kept = [ours for ours in names.values() if ours is not None]
        assert len(kept) == len(set(kept))


def test_checkpoint_without_the_data_parallel_prefix_converts_too(tmp_path):
    original = random_original("reconstruction", DEFAULTS)
    torch.save(original.state_dict(), tmp_path / "plain.pth")
    assert read_state_dict(tmp_path / "plain.pth").keys() == original.state_dict().keys()


def missing_key(state_dict):
    del state_dict["blocks.1.norm1.gamma"]


def extra_key(state_dict):
    state_dict["blocks.3.norm1.gamma"] = torch.ones(32)


def wrong_shape(state_dict):
    state_dict["blocks.0.pwff.fc1.weight"] = torch.zeros(32, 64)


def wrong_query_shape(state_dict):
    state_dict["classification_blocks.q"] = torch.zeros(1, 1, 31)


def not_a_number(state_dict):
    state_dict["embed.lin.bias"] = torch.full((32,), torch.nan)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_key, r"1 missing \(blocks\.1\.norm1\.gamma\)"),
        (extra_key, r"1 unknown \(blocks\.3\.norm1\.gamma\)"),
        (wrong_shape, r"neurt\.layers\.0\.mlp\.fc1\.weight of shape \(64, 32\), got \(32, 64\)"),
        (wrong_query_shape, "missing"),
        (not_a_number, r"NaN or infinity in neurt\.embeddings\.input_projection\.bias"),
    ],
)
def test_checkpoint_that_is_not_exactly_the_original_is_refused(damage, message, tmp_path):
    state_dict = random_original("reconstruction", DEFAULTS).state_dict()
    damage(state_dict)
    (tmp_path / "model_cfg.json").write_text(json.dumps(DEFAULTS))
    with pytest.raises(ValueError, match=message):
        build_model(state_dict, read_options(tmp_path / "model_cfg.json"))


def test_classifier_of_three_classes_is_refused_for_only_two_are_known(tmp_path):
    original = random_original("classifier", DEFAULTS)
    original.classification_blocks.lin1 = torch.nn.Linear(32, 3)
    checkpoint, config = write_original(tmp_path, original, DEFAULTS)
    with pytest.raises(ValueError, match=r"classifier\.weight of shape \(2, 32\), got \(3, 32\)"):
        convert_checkpoint(checkpoint, config, tmp_path / "converted")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 0.1}, r"1 unknown \(dropout\)"),
        ({"emb_norm": None}, r"1 missing \(emb_norm\)"),
        ({"embedding_mode": "mean"}, "embedding_mode among last, sum_all, got 'mean'"),
        ({"hidden": "32"}, "expected int, got str"),
        ({"n_heads": 5}, "num_attention_heads divides, got 32 and 5"),
        ({"n_layers": 4}, r"16 missing \(blocks\.3\.attn"),
    ],
)
def test_options_that_are_not_the_originals_are_refused(tmp_path, change, message):
    original = random_original("reconstruction", DEFAULTS)
    changed = {name: value for name, value in {**DEFAULTS, **change}.items() if value is not None}
    checkpoint, config = write_original(tmp_path, original, changed)
    with pytest.raises(ValueError, match=message) as refusal:
        convert_checkpoint(checkpoint, config, tmp_path / "converted")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "converted").exists()


class RunsCode:
    """Creates a file when unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_pickled_into_a_checkpoint_is_refused_and_never_runs(tmp_path, save):
    save({"module.embed.lin.weight": RunsCode(tmp_path / "ran")}, tmp_path / "hostile.pth")
    with pytest.raises(ValueError, match="nothing in it was run"):
        read_state_dict(tmp_path / "hostile.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0, 10, 5_000])
def test_truncated_checkpoint_is_refused(tmp_path, kept):
    checkpoint, _ = write_original(tmp_path, random_original("reconstruction", DEFAULTS), DEFAULTS)
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(ValueError, match="damaged or truncated"):
        read_state_dict(checkpoint)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"model": {"embed": torch.ones(1)}, "epoch": 3}, r"also holds model \(dict\), epoch \(int\)"), ([1], "a list")],
)
def test_checkpoint_of_another_layout_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "model.pth")


def test_existing_output_is_refused_and_left_alone(tmp_path):
    checkpoint, config = write_original(tmp_path, random_original("reconstruction", DEFAULTS), DEFAULTS)
    with pytest.raises(ValueError, match="does not exist yet"):
        convert_checkpoint(checkpoint, config, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth", "model_cfg.json"]


def test_nothing_is_left_behind_when_saving_fails(tmp_path, monkeypatch):
    checkpoint, config = write_original(tmp_path, random_original("reconstruction", DEFAULTS), DEFAULTS)
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        convert_checkpoint(checkpoint, config, tmp_path / "out" / "converted")
    assert list((tmp_path / "out").iterdir()) == []


def test_command_converts_and_says_what_it_did(tmp_path, capsys, monkeypatch):
    checkpoint, config = write_original(tmp_path, random_original("classifier", DEFAULTS), DEFAULTS)
    arguments = ["convert", str(checkpoint), "--config", str(config), "--output", str(tmp_path / "converted")]
    monkeypatch.setattr(sys, "argv", ["neurt", *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "classifier checkpoint -> NeurtForSequenceClassification" in printed
    assert "readout_position=feed_forward" in printed
    assert "classes: 0 WT, 1 5xFAD" in printed
    assert "bert.decoder.weight" in printed


def test_command_refuses_a_damaged_file_with_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    (tmp_path / "model.pth").write_bytes(b"not a checkpoint")
    (tmp_path / "model_cfg.json").write_text(json.dumps(DEFAULTS))
    arguments = ["convert", "model.pth", "--config", "model_cfg.json", "--output", "converted"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["neurt", *arguments])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("neurt: model.pth: expected a PyTorch checkpoint")
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "converted").exists()
