"""Checkpoints of anyone's models: found weights are the right ones, features equal the model's own, all else is refused."""

import dataclasses
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from collapse_lab import data
from collapse_lab.checkpoints import Request, build, features
from collapse_lab.errors import InputError
from collapse_lab.settings import DataConfig
from collapse_lab.weights import fitting, read_tensors

DIGITS = DataConfig("digits", test_images=300)


class Net(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16) if norm else nn.Tanh())
        self.head = nn.Linear(16, 8)
        self.unused = nn.Linear(8, 8)

    def forward(self, images):
        return self.head(self.body(images))


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class Structured(Net):
    def forward(self, images):
        hidden = self.body(images)
        return Answer(self.head(hidden), (images.flatten(2), hidden[:, None].expand(-1, 3, -1)))


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return make()


def plain_net() -> nn.Module:
    return Net()


def norm_net() -> nn.Module:
    return Net(norm=True)


def structured_net() -> nn.Module:
    return Structured()


def compiled_net() -> nn.Module:
    return torch.compile(Net())


def not_a_net() -> int:
    return 3


def broken_net() -> nn.Module:
    raise OSError("no such\nfile")


def request(function, **changes) -> Request:
    return Request(f"{__name__}:{function.__name__}", DIGITS, **changes)


def normalised_test_images() -> torch.Tensor:
    images = data.load(DIGITS)
    mean, std = data.statistics(images.train)
    return (images.test.float() / 255 - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


@pytest.fixture(scope="module")
def net() -> Net:
    return seeded(Net).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return normalised_test_images()


@pytest.mark.parametrize(
    ("wrap", "at"),
    [
        (lambda state: state, ""),
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
        (
            lambda state: {"state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}},
            "state_dict.module.encoder_q",
        ),
        (lambda state: {"model": {f"_orig_mod.{k}": v for k, v in state.items()}, "optimizer": {"lr": 0.1}}, "model"),
        (lambda state: {"online": state, "teacher": {"body.1.weight": state["body.1.weight"]}}, "online"),
    ],
)
def test_weights_are_found_wherever_they_lie(tmp_path, net, images, wrap, at):
    torch.save(wrap(net.state_dict()), tmp_path / "a.pt")
    _, found = fitting(Net(), read_tensors(tmp_path / "a.pt"), tmp_path / "a.pt")
    assert found == at
    modes, what = features(tmp_path / "a.pt", request(plain_net, pixels="data"))
    assert set(modes) == {"eval"}
    with torch.no_grad():
        assert torch.allclose(modes["eval"], net(images), atol=1e-6)
    assert "digits" in what
    assert "test_checkpoints:plain_net" in what


def test_a_layer_and_a_part_of_an_output_are_read_as_a_tap_reads_them(tmp_path, net, images):
    torch.save(net.state_dict(), tmp_path / "a.pt")
    with torch.no_grad():
        hidden, logits = net.body(images), net(images)
    path = tmp_path / "a.pt"
    assert torch.allclose(features(path, request(plain_net, layer="body.2"))[0]["eval"], hidden, atol=1e-6)
    picked = features(path, request(structured_net, pick="logits"))[0]["eval"]
    assert torch.allclose(picked, logits, atol=1e-6)
    pooled = features(path, request(structured_net, pick="hidden.1"))[0]["eval"]
    assert torch.allclose(pooled, hidden, atol=1e-6)
    flattened = features(path, request(structured_net, pick="hidden.-1", rows="flattened"))[0]["eval"]
    assert torch.allclose(flattened, hidden.repeat_interleave(3, 0), atol=1e-6)


def test_pixels_go_in_as_asked(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "a.pt")
    as_they_are = features(tmp_path / "a.pt", request(plain_net, pixels="none"))[0]["eval"]
    with torch.no_grad():
        assert torch.allclose(as_they_are, net(data.load(DIGITS).test.float() / 255), atol=1e-6)
    with pytest.raises(InputError, match="--pixels: found 'imagenet', but digits.* has 1 channel, not 3"):
        features(tmp_path / "a.pt", request(plain_net, pixels="imagenet"))


def test_batchnorm_answers_with_the_batchs_statistics_too_and_leaves_eval_mode_first(tmp_path, images):
    net = seeded(norm_net)
    torch.save(net.state_dict(), tmp_path / "a.pt")
    modes, _ = features(tmp_path / "a.pt", request(norm_net, layer="body.2"))
    with torch.no_grad():
        linear = net.body[1](images.flatten(1))
    # A fresh network has running mean 0 and variance 1.
    assert torch.allclose(modes["eval"], linear / (1 + 1e-5) ** 0.5, atol=1e-5)
    assert len(modes["train"]) == len(images) == 300
    first = linear[:256]
    assert torch.allclose(
        modes["train"][:256], (first - first.mean(0)) / (first.var(0, correction=0) + 1e-5).sqrt(), atol=1e-4
    )


def test_one_image_left_over_is_not_a_batch_of_its_own(tmp_path):
    many = torch.randint(0, 256, (257, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    labels = torch.zeros(257, dtype=torch.long).numpy()
    np.savez(tmp_path / "a.npz", train_images=many, train_labels=labels, test_images=many, test_labels=labels)
    torch.save(seeded(norm_net).state_dict(), tmp_path / "a.pt")
    images = DataConfig("npz", root=tmp_path / "a.npz")
    modes, _ = features(tmp_path / "a.pt", Request(f"{__name__}:norm_net", images))
    assert modes["train"].shape == modes["eval"].shape == (257, 8)


def test_a_compiled_model_takes_the_weights_of_a_plain_one(tmp_path, net):
    tensors = {name: tensor + 0 for name, tensor in net.state_dict().items()}
    weights, at = fitting(compiled_net(), tensors, tmp_path / "a.pt")
    assert at == ""
    assert set(weights) == set(compiled_net().state_dict())


@pytest.mark.parametrize(
    ("state", "changes", "expected"),
    [
        ({"a": 3}, {}, "holds dict without tensors"),
        ({"a.weight": torch.ones(2)}, {}, "of the model's 6 tensors, 'body.1.weight' first; it holds 1, the first 'a.weight'"),
        (lambda s: {k: v for k, v in s.items() if k != "head.bias"}, {}, "lacks 1 of the model's 6 tensors, 'head.bias' first"),
        (lambda s: {**s, "head.weight": torch.ones(9, 16)}, {}, "'head.weight' has shape (9, 16), the model's has (8, 16)"),
        (lambda s: {"online": s, "teacher": s}, {}, "sets of weights that fit, 'online', 'teacher'; choose one with --prefix"),
        (lambda s: {"online": s}, {"prefix": "teacher"}, "lacks 6 of the model's 6 tensors, 'teacher.body.1.weight' first"),
        (lambda s: s, {"layer": "bdy.2"}, "--layer: no layer is named 'bdy.2'; the closest are body.2"),
        (lambda s: s, {"layer": "body.*"}, "--layer: 'body.*' matches 3 layers, body.0, body.1, body.2"),
        (lambda s: s, {"layer": "unused"}, "--layer: 'unused' did not run when the model was called"),
        (lambda s: s, {"pick": "logits"}, "'logits' is not in the output; found torch.float32 (256, 8)"),
        (lambda s: s, {"rows": "class-token"}, "a class token needs a sequence"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, net, state, changes, expected):
    torch.save(state(net.state_dict()) if callable(state) else state, tmp_path / "a.pt")
    with pytest.raises(InputError) as caught:
        features(tmp_path / "a.pt", request(plain_net, **changes))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_of_several_sets_of_weights_is_chosen(tmp_path, net):
    other = seeded(lambda: (torch.rand(1), Net())[1]).state_dict()
    torch.save({"online": net.state_dict(), "teacher": other}, tmp_path / "a.pt")
    tensors = read_tensors(tmp_path / "a.pt")
    for prefix, expected in (("online", net.state_dict()), ("teacher.", other)):
        weights, _ = fitting(Net(), tensors, tmp_path / "a.pt", prefix)
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("network", "expected module:function, such as torchvision.models:resnet18"),
        ("no_such_module:f", "raised ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{__name__}:no_such", "raised AttributeError"),
        (f"{__name__}:not_a_net", "returned int; expected a torch.nn.Module"),
        (f"{__name__}:broken_net", "raised OSError: no such file"),
    ],
)
def test_a_model_that_cannot_be_built_is_named(spec, expected):
    before = sys.path.copy()
    with pytest.raises(InputError) as caught:
        build(spec)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sys.path == before


def test_a_model_that_refuses_the_images_is_an_error_of_one_line(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "a.pt")
    array, labels = np.arange(40 * 5 * 5).reshape(40, 5, 5, 1).astype(np.uint8), np.zeros(40, int)
    np.savez(tmp_path / "a.npz", train_images=array, train_labels=labels, test_images=array, test_labels=labels)
    changed = dataclasses.replace(DIGITS, name="npz", root=tmp_path / "a.npz", test_images=None)
    with pytest.raises(InputError, match=r"given images \(40, 1, 5, 5\) it raised RuntimeError") as caught:
        features(tmp_path / "a.pt", Request(f"{__name__}:plain_net", changed))
    assert "\n" not in str(caught.value)
