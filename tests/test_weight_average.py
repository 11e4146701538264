"""The average of the weights is what its formula says, and what is validated and kept."""

import torch
from neurt.training import loop as training_loop
from neurt.training.weight_average import WeightAverage
from tiny_training import train


def test_the_average_keeps_its_share_of_itself_in_each_update():
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.75, torch.device("cpu"))
    for weight in (8.0, 4.0, 0.0):
        torch.nn.init.constant_(model.weight, weight)
        average.update(model)
    # 8, then 0.75 x 8 + 0.25 x 4 = 7, then 0.75 x 7 + 0 = 5.25.
    assert average.model.weight.item() == 5.25


def test_the_average_is_validated_and_kept_and_does_not_change_the_training(tmp_path, tiny_model, monkeypatch):
    weights, step = [], training_loop._step

    def watched(run, batch):
        loss = step(run, batch)
        weights.append(run.model.decoder.weight.detach().clone())
        return loss

    monkeypatch.setattr(training_loop, "_step", watched)
    validated, plain, averaged, chosen = [], tiny_model(), tiny_model(), tiny_model()
    expected = train(plain, tmp_path / "plain")
    unaveraged, weights[:] = list(weights), []
    assert train(averaged, tmp_path / "averaged", ema_decay=0.5) == expected
    assert all(torch.equal(a, b) for a, b in zip(weights, unaveraged, strict=True))
    average = weights[0]
    for weight in weights[1:]:
        average = 0.5 * average + 0.5 * weight
    assert torch.allclose(averaged.decoder.weight, average, atol=1e-7)
    assert not torch.allclose(averaged.decoder.weight, plain.decoder.weight, atol=1e-4)

    def validate(model):
        validated.append(model.decoder.weight.detach().clone())
        return 1 / len(validated)

    train(chosen, tmp_path / "chosen", ema_decay=0.5, validate=validate)
    assert len(validated) == 3
    assert torch.equal(validated[-1], chosen.decoder.weight)
    assert torch.equal(validated[-1], averaged.decoder.weight)
