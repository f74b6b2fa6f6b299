"""How outputs of every kind become rows."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from collapse_lab import geometry
from collapse_lab.monitors import Tap, Watch
from collapse_lab.monitors.tap import resolve


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Pair(NamedTuple):
    z: torch.Tensor
    p: torch.Tensor


@dataclass
class Output:
    loss: float
    hidden: dict


Z = draw(6, 5)


@pytest.mark.parametrize(
    ("output", "pick"),
    [
        (Z, ()),
        ((None, Z), 1),
        ((None, Z), -1),
        ([draw(2, 2), Z], 1),
        ({"z": Z, "loss": 0.0}, "z"),
        (Pair(Z, draw(1, 1)), "z"),
        (Output(0.1, {"layers": (None, Z)}), ("hidden", "layers", 1)),
        ({3: Z}, 3),
    ],
)
def test_rows_are_picked_by_key_field_and_index(output, pick):
    (rows,) = Tap("layer", pick=pick).read(output)
    torch.testing.assert_close(rows, Z, rtol=0, atol=0)


def test_a_list_of_crops_counts_as_one_call_after_another():
    class MultiCrop(nn.Module):
        def forward(self, crops):
            return list(crops)

    crops = [draw(6, 5), draw(6, 5, seed=1), draw(3, 5, seed=2)]
    model = nn.ModuleDict({"m": MultiCrop()})
    with Watch(model, ["m"], every=1) as watch:
        model["m"](crops)
        gathered = watch._recorders[0].take()
    joined = geometry.moments(torch.cat(crops))
    torch.testing.assert_close(gathered.moments.second, joined.second)
    assert gathered.moments.count == 15


def test_sequences_pooled_flattened_and_class_token():
    tokens = draw(4, 7, 5)
    (pooled,) = Tap("x").read(tokens)
    (flat,) = Tap("x", rows="flattened").read(tokens)
    (first,) = Tap("x", rows="class-token").read(tokens)
    torch.testing.assert_close(pooled, tokens.mean(1))
    torch.testing.assert_close(flat, torch.cat(list(tokens)))
    torch.testing.assert_close(first, tokens[:, 0])


def test_a_prefix_of_tokens_is_left_out():
    tokens = draw(4, 7, 5)
    (pooled,) = Tap("x", prefix=2).read(tokens)
    (flat,) = Tap("x", rows="flattened", prefix=2).read(tokens)
    torch.testing.assert_close(pooled, tokens[:, 2:].mean(1))
    assert len(flat) == 4 * 5


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_feature_maps_pooled_and_flattened(layout):
    maps = draw(4, 3, 5, 6).to(memory_format=layout)
    (pooled,) = Tap("x").read(maps)
    (flat,) = Tap("x", rows="flattened").read(maps)
    torch.testing.assert_close(pooled, maps.mean((2, 3)))
    torch.testing.assert_close(flat[:30], maps[0].reshape(3, 30).T)
    assert len(flat) == 4 * 5 * 6


def test_the_channel_axis_can_be_named():
    maps = draw(4, 3, 5, 6)
    for layout, channel in ((maps, 1), (maps.movedim(1, -1), -1), (maps.movedim(1, 2), 2)):
        (pooled,) = Tap("x", channel=channel).read(layout)
        torch.testing.assert_close(pooled, maps.mean((2, 3)))
    signals = draw(4, 3, 9)
    torch.testing.assert_close(Tap("x", channel=1).read(signals)[0], signals.mean(2))


def test_half_precision_is_pooled_in_float32():
    maps = draw(4, 3, 8, 8).bfloat16()
    (pooled,) = Tap("x").read(maps)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, maps.float().mean((2, 3)))


@pytest.mark.parametrize(
    ("tap", "output", "message"),
    [
        (Tap("x"), (Z, Z), r"tap 'x': found tuple of Tensor, Tensor; choose with pick="),
        (Tap("x"), {"z": Z}, r"tap 'x': found dict with keys 'z'; choose with pick="),
        (Tap("x"), Output(0.0, {}), r"found Output with fields loss, hidden; choose with pick="),
        (Tap("x", pick="y"), {"z": Z}, r"tap 'x': pick: 'y' is not in the output; found dict with keys 'z'"),
        (Tap("x", pick=2), (Z, Z), "pick: 2 is not in the output; found tuple of Tensor, Tensor"),
        (Tap("x"), Z.long(), r"found torch.int64 \(6, 5\); a tap reads floating tensors"),
        (Tap("x"), Z[0], r"found torch.float32 \(5,\)"),
        (Tap("x"), [], "found list of ; choose"),
        (Tap("x", rows="class-token"), Z, r"a class token needs a sequence .* found \(6, 5\)"),
        (Tap("x", rows="class-token"), draw(2, 3, 4, 4), "a class token needs a sequence"),
        (Tap("x", prefix=3), draw(2, 3, 4), r"a prefix of 3 tokens needs .* found \(2, 3, 4\)"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_was_found(tap, output, message):
    with pytest.raises(ValueError, match=message):
        tap.read(output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": "pool"}, "rows: found 'pool'; allowed are pooled, flattened, class-token"),
        ({"mode": "both"}, "mode: found 'both'; allowed are train, eval"),
        ({"prefix": -1}, "prefix: found -1"),
    ],
)
def test_wrong_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        Tap("x", **options)


def test_one_layer_can_have_several_taps_with_labels():
    model = nn.ModuleDict({"tokens": nn.Identity()})
    layers = {
        "patches": Tap("tokens", rows="flattened", prefix=1),
        "mean": Tap("tokens", prefix=1),
        "class": Tap("tokens", rows="class-token"),
    }
    with Watch(model, layers, every=1) as watch:
        model["tokens"](draw(4, 7, 5))
        counts = [recorder.take().moments.count for recorder in watch._recorders]
    assert counts == [24, 4, 4]


def test_an_average_teacher_is_a_tap_of_its_own_mode():
    student, teacher = nn.Linear(3, 3), nn.Linear(3, 3).eval()
    layers = ["student", Tap("teacher", mode="eval")]
    with Watch(nn.ModuleDict({"student": student, "teacher": teacher}), layers, every=1) as watch:
        student(draw(4, 3))
        teacher(draw(4, 3))
        assert {reading.layer for reading in watch.step()} == {"student", "teacher"}
        student(draw(4, 3))
        teacher.train()(draw(4, 3))
        with pytest.raises(RuntimeError, match="layer 'teacher' did not run in evaluation mode on step 2"):
            watch.step()


def test_shared_modules_go_by_either_name():
    shared = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": shared, "b": shared})
    assert resolve(model, ["b"])["b"][1] is shared


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"all": "*"}, "label 'all': '\\*' names 2 modules, such as a, b"),
        ([Tap("a"), Tap("a", rows="flattened")], "two taps are named 'a'; give them labels"),
        ([], "layers: found none"),
    ],
)
def test_ambiguous_layers_are_refused(layers, message):
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    with pytest.raises(ValueError, match=message):
        resolve(model, layers)
