"""Views: torchvision's pixels from the same parameters, torchvision's distributions, one draw per image."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest
import torch
from scipy import stats
from sklearn.datasets import load_sample_images
from torch.testing import assert_close
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from collapse_lab import augment, colour, resample
from collapse_lab.config import build
from collapse_lab.presets import AUGMENT
from collapse_lab.settings import AugmentConfig
from collapse_lab.view_parameters import Parameters, parameters

COUNT = 48
# Largest difference of pixels in [0, 1]: what float32 rounding leaves.
CLOSE = {"rtol": 0, "atol": 5e-6}
BLACK = torch.zeros(1, 3, 40, 52, dtype=torch.uint8)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Patches of 40 x 52 pixels from scikit-learn's two photographs, and one that is black: (48, 3, 40, 52) uint8."""
    photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    patches = torch.stack([photo.unfold(1, 40, 80).unfold(2, 52, 100).flatten(1, 2) for photo in photographs])
    patches = patches.permute(0, 2, 1, 3, 4).flatten(0, 1)
    return torch.cat([patches[: COUNT - 1], BLACK]).contiguous()


def settings(**overrides: object) -> AugmentConfig:
    """A configuration that leaves the image as it is, but for the overrides."""
    identity = {"augment.crop_scale": (1.0, 1.0), "augment.crop_ratio": (1.0, 1.0)}
    return build("simsiam", identity, {f"augment.{name}": value for name, value in overrides.items()}).augment


def preset(name: str, **overrides: object) -> AugmentConfig:
    return build("simsiam", AUGMENT[name], {f"augment.{key}": value for key, value in overrides.items()}).augment


def make(images: torch.Tensor, config: AugmentConfig, seed: int = 0, epoch: int = 0, views=(0, 1)) -> torch.Tensor:
    return augment.views(images, torch.arange(len(images)), config, seed=seed, epoch=epoch, views=views)


def draw(config: AugmentConfig, size=(40, 52), count=COUNT, seed=0, epoch=0, views=(0,)) -> Parameters:
    return parameters(torch.arange(count), config, size, seed=seed, epoch=epoch, views=views)


def gray_only(images: torch.Tensor) -> torch.Tensor:
    return images[:, :1].contiguous()


def torchvision_view(image: torch.Tensor, p: Parameters, n: int, size: tuple[int, int]) -> torch.Tensor:
    """What torchvision makes of one image with the n-th parameters, flip last."""
    x = functional.resized_crop(image.float() / 255, *p.box[n].tolist(), list(size), antialias=True)
    if p.angle is not None:
        x = functional.rotate(x, p.angle[n].item(), interpolation=v2.InterpolationMode.BILINEAR)
    adjust = {
        0: (functional.adjust_brightness, p.brightness),
        1: (functional.adjust_contrast, p.contrast),
        2: (functional.adjust_saturation, p.saturation),
        3: (functional.adjust_hue, p.hue),
    }
    for operation in [] if p.order is None else p.order[n].tolist():
        function, factor = adjust[operation]
        x = x if factor is None else function(x, factor[n].item())
    if p.grayscale is not None and p.grayscale[n]:
        x = functional.rgb_to_grayscale(x, 3)
    if p.sigma is not None and p.sigma[n]:
        sigma = p.sigma[n].item()
        kernel = [2 * min(math.ceil(4 * sigma), side - 1) + 1 for side in (size[1], size[0])]
        x = functional.gaussian_blur(x, kernel, [sigma, sigma])
    return functional.horizontal_flip(x) if p.flip is not None and p.flip[n] else x


def assert_parity(images: torch.Tensor, config: AugmentConfig, size: tuple[int, int], atol: float = 5e-6) -> None:
    drawn = draw(config, count=len(images))
    expected = torch.stack([torchvision_view(image, drawn, n, size) for n, image in enumerate(images)])
    assert_close(augment.apply(images, drawn, size), expected, rtol=0, atol=atol)


# Pixels: torchvision's, from the same parameters.


@pytest.mark.parametrize("size", [(96, 96), (40, 52), (24, 24), (7, 11), (1, 1)])
def test_crop_is_torchvisions(images, size):
    assert_parity(images, settings(crop_scale=(0.05, 1.0), crop_ratio=(0.3, 3.0), flip=0.5), size)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_colour_operation_is_torchvisions(images, name):
    assert_parity(images, settings(jitter=1.0, **{name: 0.5}), (40, 52))


def test_operations_in_random_order_are_torchvisions(images):
    config = settings(jitter=0.8, brightness=1.5, contrast=1.5, saturation=1.5, hue=0.5)
    assert len(draw(config).order.unique(dim=0)) > 12
    assert_parity(images, config, (40, 52))


@pytest.mark.parametrize("names", [("brightness",), ("contrast",), ("brightness", "contrast")])
def test_one_channel_is_torchvisions(images, names):
    assert_parity(gray_only(images), settings(jitter=1.0, **dict.fromkeys(names, 0.9)), (40, 52))


def test_grayscale_is_torchvisions(images):
    assert_parity(images, settings(grayscale=0.5), (40, 52))


@pytest.mark.parametrize("size", [(24, 32), (5, 4), (1, 3)])
def test_blur_is_torchvisions(images, size):
    assert_parity(images, settings(blur=0.7, blur_sigma=(0.1, 2.0)), size)


@pytest.mark.parametrize("degrees", [10.0, 180.0])
def test_rotation_and_flip_are_torchvisions(images, degrees):
    # Both round the coordinates of the pixels, 52 at most, to float32.
    assert_parity(images, settings(rotation=degrees, flip=0.5), (40, 52), atol=2e-5)


@pytest.mark.parametrize("name", AUGMENT)
def test_presets_are_torchvisions(images, name):
    assert_parity(images, preset(name), (32, 32), atol=2e-5)


# Parameters: the distributions torchvision draws from.


def crops_by_torchvision(config: AugmentConfig, count: int) -> torch.Tensor:
    crop = v2.RandomResizedCrop(8, config.crop_scale, config.crop_ratio)
    found = (crop.make_params([torch.empty(3, 40, 52)]) for _ in range(count))
    return torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in found])


@pytest.mark.parametrize(
    ("scale", "ratio"), [((0.2, 1.0), (0.75, 4 / 3)), ((0.9, 1.0), (0.5, 2.0)), ((0.8, 1.0), (3.0, 4.0))]
)
def test_boxes_follow_torchvision(scale, ratio):
    config = settings(crop_scale=scale, crop_ratio=ratio)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = crops_by_torchvision(config, 3000)
    ours = draw(config, count=3000, seed=1).box
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    area, their_area = (boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs))
    assert stats.ks_2samp(area, their_area).pvalue > 1e-3


@pytest.mark.parametrize("size", [(40, 52), (1, 1), (3, 200), (200, 3)])
def test_boxes_lie_in_the_image(size):
    box = draw(settings(crop_scale=(0.01, 1.0), crop_ratio=(0.5, 2.0)), size=size, count=2000).box
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] >= 1).all()
    assert (box[:, :2] + box[:, 2:] <= torch.tensor(size)).all()


def test_where_no_try_fits_the_crop_is_torchvisions_central_one():
    for size in ((10, 100), (100, 10), (10, 10)):
        config = settings(crop_scale=(1.0, 1.0), crop_ratio=(0.75, 4 / 3) if size != (10, 10) else (1.2, 1.3))
        crop = v2.RandomResizedCrop(8, config.crop_scale, config.crop_ratio)
        theirs = crop.make_params([torch.empty(3, *size)])
        ours = draw(config, size=size, count=20).box.unique(dim=0)
        assert ours.tolist() == [[theirs[name] for name in ("top", "left", "height", "width")]]


def test_factors_follow_torchvision():
    amounts = {"brightness": 1.5, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    drawn = draw(settings(jitter=1.0, **amounts), count=5000)
    bounds = v2.ColorJitter(**amounts)
    for name in amounts:
        low, high = getattr(bounds, name)
        assert stats.kstest(getattr(drawn, name), "uniform", (low, high - low)).pvalue > 1e-3


def test_orders_are_equally_likely():
    drawn = draw(settings(jitter=1.0, hue=0.1), count=5000)
    orders, counts = drawn.order.unique(dim=0, return_counts=True)
    assert len(orders) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_steps_happen_as_often_as_told():
    config = settings(jitter=0.8, brightness=0.4, hue=0.1, grayscale=0.2, blur=0.5, flip=0.3)
    drawn = draw(config, count=5000)
    jittered = drawn.brightness != 1
    assert torch.equal(jittered, drawn.hue != 0)
    shares = {0.8: jittered, 0.2: drawn.grayscale, 0.5: drawn.sigma > 0, 0.3: drawn.flip}
    for share, happened in shares.items():
        assert stats.binomtest(int(happened.sum()), 5000, share).pvalue > 1e-3
    together = torch.stack([happened.double() for happened in shares.values()]).corrcoef()
    assert (together - torch.eye(4)).abs().max() < 4 / 5000**0.5


def test_sigma_and_angle_are_uniform():
    drawn = draw(settings(blur=1.0, blur_sigma=(0.5, 2.0), rotation=30.0), count=5000)
    assert stats.kstest(drawn.sigma, "uniform", (0.5, 1.5)).pvalue > 1e-3
    assert stats.kstest(drawn.angle, "uniform", (-30, 60)).pvalue > 1e-3


# Keys: who draws what.


def same(one: Parameters, other: Parameters) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Parameters)]
    return all(torch.equal(a, b) for a, b in pairs)


def test_parameters_do_not_depend_on_the_batch():
    config = preset("imagenet", rotation=5.0)
    whole = draw(config)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for field in fields(Parameters):
        value = getattr(whole, field.name)
        for rows in (order, order[:5], order[7:8]):
            part = parameters(rows, config, (40, 52), seed=0, epoch=0, views=(0,))
            assert torch.equal(getattr(part, field.name), value[rows])


def test_views_do_not_depend_on_the_batch(images):
    config = preset("imagenet", size=32)
    whole = make(images, config)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    for rows in (order, order[:5], order[7:8]):
        part = augment.views(images[rows], rows, config, seed=0, epoch=0, views=(0, 1))
        assert_close(part, whole[:, rows], rtol=0, atol=1e-6)


def test_views_do_not_depend_on_the_pieces_the_batch_is_cut_into(images, monkeypatch):
    config = preset("imagenet", size=32)
    whole = make(images, config)
    monkeypatch.setattr(augment, "_CPU_PIECE", 7 * images[0].numel())
    assert_close(make(images, config), whole, rtol=0, atol=1e-6)


def test_views_are_made_by_number(images):
    config = preset("cifar")
    both = make(images, config, views=(0, 1))
    assert_close(make(images, config, views=(1,))[0], both[1], rtol=0, atol=1e-6)
    assert_close(make(images, config, views=(1, 0)).flip(0), both, rtol=0, atol=1e-6)


def test_views_made_in_a_thread_leave_alone_what_autocast_keeps_for_a_step(images):
    weight = torch.eye(4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16), ThreadPoolExecutor(1) as pool:
        before = torch.ones(2, 4) @ weight
        pool.submit(make, images[:2], preset("cifar")).result()
        after = torch.ones(2, 4) @ weight
    casts = [product.grad_fn.next_functions[1][0] for product in (before, after)]
    assert casts[0].name() == "ToCopyBackward0"
    assert casts[0] is casts[1]


def test_of_no_images_there_are_no_views(images):
    assert make(images[:0], preset("cifar")).shape == (2, 0, 3, 40, 52)


def test_the_same_call_gives_the_same_bits(images):
    assert torch.equal(make(images, preset("imagenet", size=32)), make(images, preset("imagenet", size=32)))


def test_seed_epoch_view_and_sample_each_change_the_draw():
    config = preset("imagenet", rotation=5.0)
    base = draw(config)
    others = [draw(config, seed=1), draw(config, epoch=1), draw(config, views=(1,))]
    others.append(parameters(torch.arange(COUNT) + COUNT, config, (40, 52), seed=0, epoch=0, views=(0,)))
    for other in others:
        assert not same(base, other)
        assert (base.angle != other.angle).all()


def test_switching_a_step_off_leaves_the_other_draws():
    whole = draw(preset("imagenet"))
    part = draw(preset("imagenet", hue=0.0, grayscale=0.0, blur=0.0))
    assert part.hue is part.grayscale is part.sigma is None
    assert all(torch.equal(getattr(part, name), getattr(whole, name)) for name in ("box", "flip", "order", "contrast"))


# What each step leaves alone.


def test_identity_returns_the_image(images):
    square = images[..., :40].contiguous()
    made = make(square, settings())
    assert made.shape == (2, COUNT, 3, 40, 40)
    assert made.dtype == torch.float32
    assert_close(made, (square.float() / 255).expand(2, -1, -1, -1, -1), rtol=0, atol=1e-7)


def test_steps_of_amount_zero_are_not_drawn():
    drawn = draw(settings(brightness=0.4, hue=0.1))
    assert [field.name for field in fields(Parameters) if getattr(drawn, field.name) is not None] == ["box"]


def test_flipping_twice_is_the_identity(images):
    once = make(images, preset("digits", flip=1.0, brightness=0.0, rotation=0.0), views=(0,))[0]
    never = make(images, preset("digits", brightness=0.0, rotation=0.0), views=(0,))[0]
    assert_close(once.flip(3), never, **CLOSE)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_constant_image_stays_constant(value):
    flat = torch.full((16, 3, 30, 20), value, dtype=torch.uint8)
    made = make(flat, settings(crop_scale=(0.1, 1.0), size=25, blur=1.0, flip=0.5))
    assert_close(made, torch.full_like(made, value / 255), rtol=0, atol=1e-6)
    turned = make(flat, settings(size=25, rotation=180.0))[..., 9:16, 9:16]
    assert_close(turned, torch.full_like(turned, value / 255), rtol=0, atol=1e-6)


def test_views_lie_between_0_and_1(images):
    bright = torch.cat([images, torch.full_like(images, 255)])
    made = make(bright, preset("imagenet", size=17, brightness=3.0, contrast=3.0, saturation=3.0))
    assert made.min() >= 0
    assert made.max() <= 1


def test_hue_turned_by_the_full_circle_or_there_and_back_is_the_identity(images):
    x = images.float() / 255
    turns = torch.linspace(-0.5, 0.5, COUNT)
    assert_close(colour.rotate_hue(x, torch.ones(COUNT)), x, **CLOSE)
    assert_close(colour.rotate_hue(colour.rotate_hue(x, turns), -turns), x, **CLOSE)
    assert_close(colour.rotate_hue(x, torch.full((COUNT,), 1 / 3)), x[:, [2, 0, 1]], **CLOSE)


def test_hue_keeps_value_and_chroma_and_gray(images):
    x = images.float() / 255
    turned = colour.rotate_hue(x, torch.linspace(-0.5, 0.5, COUNT))
    assert_close(turned.amax(1), x.amax(1), **CLOSE)
    assert_close(turned.amin(1), x.amin(1), **CLOSE)
    gray = colour.luminance(x).expand_as(x)
    assert_close(colour.rotate_hue(gray, torch.full((COUNT,), 0.3)), gray, **CLOSE)


def test_saturation_keeps_luminance_and_contrast_its_mean(images):
    x = images.float() / 255 * 0.2 + 0.4
    factor, zero = torch.full((COUNT,), 0.3, dtype=torch.float64), torch.zeros(COUNT, dtype=torch.float64)
    saturated = colour.blend(x, colour.blend_matrices(factor, 1 - factor, zero, 3))
    assert_close(colour.luminance(saturated), colour.luminance(x), rtol=0, atol=1e-4)
    contrasted = colour.blend(x, colour.blend_matrices(factor, zero, 1 - factor, 3))
    means = [colour.luminance(y).mean((1, 2, 3)) for y in (contrasted, x)]
    assert_close(*means, rtol=0, atol=1e-4)


def test_rotation_by_a_quarter_turn_moves_pixels_counter_clockwise(images):
    square = images[..., :40].float() / 255
    turned = resample.rotate(square, torch.full((COUNT,), 90.0, dtype=torch.float64))
    assert_close(turned, square.rot90(1, (2, 3)), rtol=0, atol=1e-4)


def test_resizing_and_blurring_are_averages():
    start, length = torch.tensor([0.0, 3.0, 5.0]), torch.tensor([20.0, 17.0, 1.0])
    for made in (1, 7, 20, 33):
        weights = resample.resize_matrix(start, length, 20, made)
        assert (weights >= 0).all()
        assert_close(weights.sum(2), torch.ones(3, made))
        outside = (torch.arange(20) < start[:, None]) | (torch.arange(20) >= (start + length)[:, None])
        assert (weights.sum(1)[outside] == 0).all()
    for size in (1, 2, 9):
        assert_close(resample.blur_matrix(torch.tensor([0.1, 1.0, 9.0]), size).sum(2), torch.ones(3, size))


def test_a_view_has_the_size_asked_for(images):
    assert make(images, preset("cifar", size=9), views=(0, 1, 2)).shape == (3, COUNT, 3, 9, 9)
    assert make(images, preset("cifar")).shape == (2, COUNT, 3, 40, 52)


# Devices and modes.


def test_no_step_asks_the_device_for_a_value():
    # Tensors of the meta device hold no values: whatever needs one to go on fails on them, as it would wait on a GPU.
    drawn = draw(preset("imagenet", rotation=5.0), count=12)
    images = torch.empty(12, 3, 40, 52, dtype=torch.uint8, device="meta")
    made = resample.crop(images, drawn.box, drawn.flip, (32, 32))
    for operation, amount in augment._steps(drawn, 3):
        made = operation(made, amount)
    assert made.device.type == "meta"
    assert made.shape == (12, 3, 32, 32)


def test_autocast_does_not_coarsen_the_pixels(images):
    expected = make(images, preset("cifar"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(make(images, preset("cifar")), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", AUGMENT)
def test_the_gpu_makes_the_same_views_without_waiting(images, name):
    config = preset(name, size=32)
    on_gpu, samples = images.cuda(), torch.arange(COUNT)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = augment.views(on_gpu, samples, config, seed=0, epoch=0, views=(0, 1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_close(made.cpu(), make(images, config), rtol=0, atol=1e-5)


# Refusals.


@pytest.mark.parametrize(
    ("name", "allowed"), [("saturation", "3"), ("hue", "3"), ("grayscale", "3"), ("contrast", "1 or 3")]
)
def test_colour_on_other_channels_is_refused(name, allowed):
    two = torch.zeros(4, 2, 8, 8, dtype=torch.uint8)
    config = settings(jitter=0.5, **{name: 0.25})
    with pytest.raises(ValueError, match=rf"augment\.{name}: found 0.25 on images of 2 channels, needs {allowed}"):
        make(two, config)


def test_colour_that_is_off_is_not_refused():
    one = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert make(one, settings(saturation=0.4, hue=0.1)).shape == (2, 4, 1, 8, 8)
    assert make(one[:, [0, 0]], settings(jitter=1.0, brightness=0.4)).shape == (2, 4, 2, 8, 8)


def test_images_are_checked():
    config, samples = settings(), torch.arange(4)
    for wrong in (torch.zeros(4, 1, 8, 8), torch.zeros(4, 8, 8, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"images: found .* must be uint8 of shape \(N, C, H, W\)"):
            augment.views(wrong, samples, config, seed=0, epoch=0, views=(0,))
    four = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="with 3 samples"):
        augment.views(four, samples[:3], config, seed=0, epoch=0, views=(0,))
