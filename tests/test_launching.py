"""Two processes train as one does, and a process that was killed goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from neurt.cli import app
from neurt.ledger import plain_command
from tiny_training import assert_same_weights, largest_difference, results

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
TWO_PROCESSES = """
import json, pathlib, sys
from accelerate import PartialState
from neurt.cli import app
for command in json.loads(sys.argv[1]):
    app(command, standalone_mode=False)
pathlib.Path(sys.argv[0] + f"-{PartialState().process_index}-of-{PartialState().num_processes}").touch()
"""


def run(*words):
    app([str(word) for word in words], standalone_mode=False)


def test_two_processes_train_as_one_does(build, tmp_path, config_file):
    # An epoch is one step, so the log holds the loss of every step.
    def commands(folder, *flags, pretraining=()):
        shared = ("--test", "sim005", "--test", "sim006", "--epochs", 3, "--batch-size", 96, *flags)
        tasks = ("--task", "span=2", "--task", "neuron", "--task", "forecast=0.5")
        model = ("--config", config_file, "--window-length", 40, "--validation-fraction", 0.1, *tasks, *pretraining)
        pretrained = ["pretrain", build, "--output", folder / "pretrained", *model, *shared]
        classifier = ["finetune", build, "--output", folder / "classifier", "--model", folder / "pretrained"]
        classifier += ["--label", "group", "--learning-rate", 1e-3, *shared]
        return [[str(word) for word in command] for command in (pretrained, classifier)]

    for command in commands(tmp_path / "one"):
        run(*command)
    for command in commands(tmp_path / "accumulated", "--accumulation-steps", 2):
        run(*command)
    script = tmp_path / "both.py"
    script.write_text(TWO_PROCESSES)
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launched = subprocess.run(
        [*launcher, str(script), json.dumps(commands(tmp_path / "two", pretraining=("--cache", tmp_path / "cache")))],
        env={**ONE_THREAD, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert launched.returncode == 0, launched.stderr
    assert {path.name for path in tmp_path.glob("both.py-*")} == {"both.py-0-of-2", "both.py-1-of-2"}
    for model in ("pretrained", "classifier"):
        expected = results(tmp_path / "one" / model)["log"]
        assert [entry["step"] for entry in expected] == [1, 2, 3]
        for other in ("two", "accumulated"):
            log = results(tmp_path / other / model)["log"]
            assert log == [pytest.approx(entry, abs=1e-5) for entry in expected]
            assert largest_difference(tmp_path / other / model, tmp_path / "one" / model) < 1e-5


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(build, tmp_path, config_file):
    flags = ["--config", config_file, "--window-length", 40, "--epochs", 12, "--batch-size", 32]
    flags += ["--checkpoint-every", 1, "--validation-fraction", 0.1]
    whole = ["pretrain", build, "--output", tmp_path / "whole", *flags]
    run(*whole)

    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "neurt.train", "pretrain", build, "--output", killed, *flags]
    with subprocess.Popen(map(str, command), env=ONE_THREAD, **SILENT) as process:
        deadline = time.monotonic() + 60
        while not any(killed.glob("training/step-1?")) and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in killed.iterdir()] == ["training"]

    with pytest.raises(ValueError, match="got an unfinished run in .* pass --resume to go on"):
        run("pretrain", build, "--output", killed, *flags)
    run("pretrain", build, "--output", killed, *flags, "--resume")
    assert_same_weights(killed, tmp_path / "whole")
    assert results(killed)["log"] == results(tmp_path / "whole")["log"]
    assert results(tmp_path / "whole")["command"] == plain_command(["neurt", *map(str, whole)])
    assert results(killed)["reconstruction"] == results(tmp_path / "whole")["reconstruction"]
    assert not list(killed.rglob("*writing*")) and len(list(killed.glob("training/step-*"))) == 1
