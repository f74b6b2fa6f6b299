"""A watch's own verdict, alone and beside a recorded run that went well, on real short trainings of the digits."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from collapse_lab.monitors import CHEAP, FULL, Watch, sinks

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LABELS = {"backbone": "stage3", "projector": "projector"}


def train(seed: int, directory: Path, *, stop_gradient: bool = True, epochs: int = 12, **kept) -> Watch:
    """A SimSiam of the examples after some epochs, its watch closed; readings go to a table in the directory."""
    digits = importlib.import_module("digits")
    directory.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, images = digits.SimSiam(stop_gradient=stop_gradient), digits.images()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        with Watch(model, LABELS, 2, sinks=[sinks.table(directory / "metrics.csv")], **kept) as watch:
            for _ in range(epochs):
                for batch in images[torch.randperm(len(images))].split(128)[:14]:
                    optimizer.zero_grad()
                    model(digits.view(batch), digits.view(batch)).backward()
                    optimizer.step()
                    watch.step()
    return watch


@pytest.fixture(scope="module", autouse=True)
def examples():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory, examples) -> tuple[Path, Watch]:
    directory = tmp_path_factory.mktemp("runs") / "good"
    return directory, train(0, directory)


def test_a_good_run_is_healthy_alone_and_beside_another_good_one(good, tmp_path):
    alone = good[1].verdict(outputs=["projector"])
    assert (alone["projector"].kind, alone["projector"].onset) == ("healthy", None)
    beside = train(1, tmp_path / "run", reference=good[0]).verdict()
    assert {label: verdict.kind for label, verdict in beside.items()} == dict.fromkeys(LABELS, "healthy")
    origins = {vote.measure: vote.origin for vote in beside["projector"].votes}
    assert origins["std_ratio"] == origins["rankme"] == "reference run at the same steps"


def test_a_run_without_stop_gradient_is_a_collapse_beside_the_good_one(good, tmp_path):
    verdict = train(1, tmp_path / "run", stop_gradient=False, reference=good[0]).verdict()["projector"]
    assert verdict.kind == "complete-collapse"
    assert verdict.severity > 0.9
    assert verdict.onset[0] == 0
    assert verdict.onset[1] < 30
    assert {vote.says for vote in verdict.votes} == {"collapse"}


def test_the_full_bundle_brings_the_centred_rank_and_the_outliers_share_to_the_vote(tmp_path):
    verdict = train(0, tmp_path / "run", epochs=1, statistics=FULL).verdict(outputs=["projector"])["projector"]
    assert {vote.measure for vote in verdict.votes} >= {"centred_rankme", "outlier_share", "rankme", "std_ratio"}


def test_a_reference_must_have_a_watched_layer(good, tmp_path):
    model = nn.ModuleDict({"fc": nn.Linear(3, 3)})
    with pytest.raises(FileNotFoundError, match=r"nowhere.metrics.csv"):
        Watch(model, ["fc"], reference=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has none of \['fc'\] .* it has \['backbone', 'projector'\]"):
        Watch(model, ["fc"], reference=good[0])
    assert not model["fc"]._forward_hooks


def test_a_verdict_needs_its_measures_known_labels_and_readings():
    model = nn.ModuleDict({"fc": nn.Linear(3, 3)})
    with Watch(model, ["fc"], statistics=CHEAP) as watch, pytest.raises(ValueError, match="needs rankme too"):
        watch.verdict()
    with Watch(model, ["fc"]) as watch:
        assert watch.verdict()["fc"].kind == "insufficient-data"
        with pytest.raises(KeyError, match="no layer is labelled 'head'; there are fc"):
            watch.verdict(outputs=["head"])
