"""Images that stay in their files: the same pixels, the same views, the same run as from memory."""

from __future__ import annotations

import os
import signal
import struct
import threading
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from collapse_lab import augment, data, decoding, display, feeds, trainer
from collapse_lab.config import build
from collapse_lab.data import load
from collapse_lab.decoding import cut, fitted, pixels
from collapse_lab.errors import InputError
from collapse_lab.image_files import ImageFiles
from collapse_lab.presets import AUGMENT
from collapse_lab.runs import Run
from collapse_lab.settings import Config, DataConfig
from collapse_lab.trainer import Trainer
from collapse_lab.view_parameters import parameters
from collapse_lab.workers import News
from tests.tiny import load as loaded
from tests.tiny import same, signalled, tiny, trained

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE = 40
LEVEL = 1 / 255


def photographs(folder: Path, count: int, sizes: list[tuple[int, int]], suffix: str = "png") -> Path:
    """Smooth random images, two classes, (height, width) in turns."""
    draw = np.random.default_rng(0)
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        coarse = Image.fromarray(draw.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        for split in ("train", "val"):
            path = folder / split / "ab"[number % 2] / f"{number:03}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("square"), 32, [(SIZE, SIZE)])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("mixed"), 12, [(40, 64), (81, 50), (33, 33)], "jpg")


def streamed(root: Path, **settings: object) -> Config:
    chosen = {"data__name": "imagefolder", "data__root": root, "data__image_size": SIZE, "data__stream": True}
    off = {"data__train_images": None, "data__test_images": None, "augment__rotation": 0.0}
    return tiny(**{**off, **chosen, **settings})


def made(config: Config, batches: list[torch.Tensor], *, epoch: int = 1) -> list[torch.Tensor]:
    feed = feeds.feed(load(config.data).train, config, 2)
    feed.expect(batches, epoch)
    views = [feed.views(batch, epoch) for batch in batches]
    feed.close()
    return views


def both(root: Path, **settings: object) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [torch.tensor([3, 1, 30, 7, 12, 0]), torch.tensor([8, 9])]
    configs = (streamed(root, data__stream=stream, **settings) for stream in (True, False))
    first, second = (torch.cat(made(config, batches), 1) for config in configs)
    return first, second


def test_clean_pixels_are_those_in_memory_to_the_byte(mixed: Path) -> None:
    memory, files = (load(DataConfig("imagefolder", mixed, image_size=32, stream=stream)) for stream in (False, True))
    assert isinstance(files.train, ImageFiles)
    assert files.train.shape == memory.train.shape
    assert files.name == memory.name
    index = torch.tensor([5, 0, 11])
    assert torch.equal(files.train[index], memory.train[index])
    assert torch.equal(files.test[2:7], memory.test[2:7])
    for one, other in zip(data.statistics(files.train), data.statistics(memory.train), strict=True):
        assert torch.equal(one, other)


def test_a_streamed_crop_is_the_one_from_memory_rounded_to_levels(square: Path) -> None:
    files, memory = both(square, augment__jitter=0.0, augment__flip=0.5)
    assert not torch.equal(files[0], files[1])
    # One rounding for rows, one for columns.
    assert float((files - memory).abs().max()) <= 1.01 * LEVEL
    assert float((files - memory).abs().mean()) < 0.4 * LEVEL


def test_all_that_follows_the_crop_is_drawn_and_done_as_in_memory(square: Path) -> None:
    chosen = {key.replace(".", "__"): value for key, value in AUGMENT["imagenet"].items()}
    files, memory = both(square, **{**chosen, "augment__size": 24, "augment__rotation": 30.0})
    # Factors up to 1.4 thrice; hue and contrast can add to it where channels are nearly equal.
    assert float((files - memory).abs().mean()) < 1.0 * LEVEL
    assert float((files - memory).abs().quantile(0.999)) < 10 * LEVEL


def test_a_crop_of_the_whole_photograph_has_the_antialias_of_the_device(mixed: Path) -> None:
    files = ImageFiles(sorted(mixed.rglob("train/*/*.jpg")), SIZE)
    config = build("simsiam", {"augment.crop_scale": (0.2, 1.0)}).augment
    for number, (path, size) in enumerate(zip(files.paths, files.sizes(), strict=True)):
        drawn = parameters(torch.tensor([number]), config, size[None], seed=0, epoch=1, views=(0, 1))
        crops = torch.empty(2, 3, 16, 16, dtype=torch.uint8)
        cut(path, drawn.box, crops)
        whole = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        expected = augment.apply(whole.expand(2, -1, -1, -1).contiguous(), drawn, (16, 16))
        assert float((crops / 255 - expected).abs().max()) <= 1.01 * LEVEL


def test_a_streamed_crop_is_that_of_pil(mixed: Path) -> None:
    """Both round after either pass, with weights of other precision: one level; no antialias would make 13, a pixel 39."""
    generator = torch.Generator().manual_seed(0)
    for path in sorted(mixed.rglob("train/*/*.jpg")):
        with Image.open(path) as image:
            sides = torch.tensor([image.height, image.width])
            lengths = (sides * (0.3 + 0.7 * torch.rand(4, 2, generator=generator))).long()
            starts = ((sides - lengths + 1) * torch.rand(4, 2, generator=generator)).long()
            crops = torch.empty(4, 3, 24, 20, dtype=torch.uint8)
            cut(path, torch.cat([starts, lengths], 1), crops)
            for (top, left), (height, width), crop in zip(starts.tolist(), lengths.tolist(), crops, strict=True):
                box = image.crop((left, top, left + width, top + height))
                expected = torch.from_numpy(np.array(box.resize((20, 24), Image.Resampling.BILINEAR))).permute(2, 0, 1)
                assert (crop.int() - expected.int()).abs().max() <= 1


def test_boxes_of_images_of_many_sizes_are_those_of_each_alone() -> None:
    sizes = torch.tensor([[40, 64], [81, 50], [10, 200], [33, 33]])
    config = build("simsiam", {"augment.crop_scale": (0.5, 1.0)}).augment
    together = parameters(torch.arange(4), config, sizes, seed=1, epoch=2, views=(0, 1)).box.view(2, 4, 4)
    for number, size in enumerate(sizes.tolist()):
        alone = parameters(torch.tensor([number]), config, tuple(size), seed=1, epoch=2, views=(0, 1)).box
        assert torch.equal(together[:, number], alone)
        assert (alone[:, 2:] <= sizes[number]).all()


@pytest.mark.parametrize("stream", [True, False])
def test_a_view_does_not_depend_on_what_was_expected_or_on_threads(mixed: Path, stream: bool) -> None:
    config = streamed(mixed, data__stream=stream)
    batches = list(torch.randperm(12, generator=torch.Generator().manual_seed(0)).split(3))
    feed = feeds.feed(load(config.data).train, config, 2)
    feed.expect(batches[:2], epoch=1)
    asked_otherwise = [feed.views(batch, 1) for batch in reversed(batches)]
    feed.close()
    every_core = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every_core)})
    try:
        on_one_core = made(config, batches)
    finally:
        os.sched_setaffinity(0, every_core)
    for one, other in zip(reversed(asked_otherwise), on_one_core, strict=True):
        assert torch.equal(one, other)


def test_an_interrupted_streamed_run_goes_on_to_the_byte_and_records_its_waiting(square: Path, tmp_path: Path) -> None:
    config = streamed(square, augment__jitter=0.8, augment__brightness=0.4, train__batch=8)
    assert trained(config, tmp_path / "whole")["state"] == "done"
    with pytest.raises(KeyboardInterrupt):
        trained(config, tmp_path / "cut", signalled(6))
    assert trained(config, tmp_path / "cut")["state"] == "done"
    assert same(tmp_path / "whole", tmp_path / "cut")
    timing = pd.read_csv(tmp_path / "whole" / "timing.csv")
    assert list(timing.columns) == ["epoch", "seconds", "images_per_second", "waiting"]
    assert ((timing["waiting"] >= 0) & (timing["waiting"] <= timing["seconds"])).all()


def test_a_damaged_file_is_named_and_leaves_the_run_to_be_resumed(tmp_path: Path) -> None:
    root = photographs(tmp_path / "images", 32, [(SIZE, SIZE)])
    config, images = streamed(root, train__batch=8), load(streamed(root).data)
    broken = images.train.paths[3]
    with Run(tmp_path / "run", config) as run:
        trainer = Trainer(config, run, images, lambda progress: None)
        broken.write_bytes(broken.read_bytes()[:100])
        trainer.objective.train()
        with pytest.raises(InputError, match=rf"image '.*{broken.name}' cannot be decoded: .*; repair or remove it"):
            trainer._train_step(torch.arange(8), 1)
        trainer.feed.close()


def test_a_file_that_vanishes_in_mid_run_is_named_and_the_run_goes_on_when_it_is_back(tmp_path: Path) -> None:
    root = photographs(tmp_path / "images", 32, [(SIZE, SIZE)])
    config = streamed(root, train__batch=8)
    file = root / "train" / "a" / "004.png"
    kept = file.read_bytes()

    class Vanishing(Trainer):
        def _train_step(self, samples: torch.Tensor, epoch: int) -> None:
            if self.step == 5:
                file.unlink()
            super()._train_step(samples, epoch)

    with pytest.raises(InputError, match=r"image '.*004\.png' cannot be decoded: .*No such file"):
        trained(config, tmp_path / "cut", Vanishing)
    with Run(tmp_path / "cut", config) as run:
        assert run.status()["state"] == "interrupted"
        assert "004.png" in run.status()["error"]
    loaded.cache_clear()
    with pytest.raises(InputError, match="was begun on other images than 'images.*' now has: bring them back"):
        trained(config, tmp_path / "cut")
    file.write_bytes(kept)
    loaded.cache_clear()
    assert trained(config, tmp_path / "cut")["state"] == "done"
    trained(config, tmp_path / "whole")
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_an_interrupt_is_obeyed_while_a_step_waits_for_its_files(
    square: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, opened, released = streamed(square, train__batch=8), threading.Event(), []
    opened.set()

    class Slow(type(Path())):
        def __fspath__(self) -> str:
            released.append(opened.wait(20))
            return super().__fspath__()

    class Waiting(Trainer):
        def _train_step(self, samples: torch.Tensor, epoch: int) -> None:
            if self.step == 4:
                opened.clear()
                threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            super()._train_step(samples, epoch)

        def _save(self, healthy: bool = True) -> None:
            super()._save(healthy)
            opened.set()

    images = load(config.data)
    files = ImageFiles([Slow(path) for path in images.train.paths], SIZE)
    monkeypatch.setattr(trainer, "Trainer", Waiting)
    with Run(tmp_path / "cut", config) as run, pytest.raises(KeyboardInterrupt):
        trainer.train(config, run, replace(images, train=files), lambda progress: None)
    monkeypatch.undo()
    assert all(released)
    with Run(tmp_path / "cut", config) as run:
        assert run.status()["state"] == "interrupted"
        assert 4 < run.status()["step"] < 12
    assert trained(config, tmp_path / "cut")["state"] == "done"
    trained(config, tmp_path / "whole")
    assert same(tmp_path / "whole", tmp_path / "cut")


def deep_png(path: Path, levels: np.ndarray) -> None:
    """RGB of 16 bits a channel, (H, W, 3), which PIL cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def picture(mode: str) -> Image.Image:
    """48 x 64, smooth, in one of PIL's modes."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = coarse.resize((64, 48), Image.Resampling.BICUBIC)
    return image.quantize(32) if mode == "P" else image.convert(mode)


# What a file holds, and how far from the same picture in RGB its pixels may be, in levels of 255.
KINDS = {
    "rgb.png": ("RGB", {}, 0),
    "alpha.png": ("RGBA", {}, 0),
    "grey.png": ("L", {}, 0),
    "grey-alpha.png": ("LA", {}, 0),
    "bits.png": ("1", {}, 0),
    "palette.gif": ("P", {"transparency": 3}, 0),
    "palette.png": ("P", {"transparency": bytes([0, 128] + [255] * 30)}, 0),
    "ink.tif": ("CMYK", {}, 0),
    "ink.jpg": ("CMYK", {"quality": 95}, 12),
    "video.tif": ("YCbCr", {}, 2),
    "small.webp": ("RGB", {"lossless": True}, 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_pixels_becomes_rgb(tmp_path: Path, name: str) -> None:
    mode, options, tolerance = KINDS[name]
    image = picture(mode)
    image.save(tmp_path / name, **options)
    expected = np.array(image.convert("RGB")).astype(int)
    assert np.abs(fitted(tmp_path / name, 48) - expected[:, 8:56]).max() <= tolerance
    crop = torch.empty(1, 3, 48, 64, dtype=torch.uint8)
    cut(tmp_path / name, torch.tensor([[0, 0, 48, 64]]), crop)
    assert np.abs(crop[0].permute(1, 2, 0).numpy() - expected).max() <= tolerance


JPEGS = {
    "plain": ("RGB", {"quality": 50}),
    "fine": ("RGB", {"quality": 95, "subsampling": 0}),
    "progressive": ("RGB", {"progressive": True, "subsampling": 1}),
    "rgb": ("RGB", {"keep_rgb": True}),
    "grey": ("L", {}),
    "ink": ("CMYK", {}),
}


@pytest.mark.parametrize("name", JPEGS)
def test_torchvision_and_pil_decode_the_same_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if decoding.decode_jpeg is None:
        pytest.skip("this torchvision does not decode")
    mode, options = JPEGS[name]
    file = tmp_path / "1.jpg"
    picture("RGB").resize((101, 77)).convert(mode).save(file, **options)
    fast = pixels(file)
    monkeypatch.setattr(decoding, "decode_jpeg", None)
    assert torch.equal(fast, pixels(file))


def test_a_foreign_file_with_the_name_of_a_jpeg_is_read_and_a_damaged_one_named(tmp_path: Path) -> None:
    picture("RGB").save(tmp_path / "foreign.jpg", format="PNG")
    assert np.array_equal(pixels(tmp_path / "foreign.jpg").permute(1, 2, 0), np.array(picture("RGB")))
    picture("RGB").save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"image '.*cut\.jpg' cannot be decoded: .*[Tt]runcated"):
        pixels(tmp_path / "cut.jpg")


def test_a_file_that_became_smaller_is_named(tmp_path: Path) -> None:
    picture("RGB").resize((8, 8)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1\.png' is 8 x 8 pixels by now, smaller than it was when the run began"):
        cut(tmp_path / "1.png", torch.tensor([[20, 20, 9, 9]]), torch.empty(1, 3, 4, 4, dtype=torch.uint8))


class Counted(type(Path())):
    """A path that counts how often any of its kind is opened."""

    reads = 0

    def __fspath__(self) -> str:
        Counted.reads += 1
        return super().__fspath__()


def test_no_more_than_so_many_batches_are_under_way(mixed: Path) -> None:
    files = ImageFiles([Counted(mixed / "train" / "a" / "000.jpg")] * 60, SIZE)
    feed = feeds.feed(files, streamed(mixed), 2)
    Counted.reads = 0
    feed.expect(torch.arange(60).split(6), 1)
    feed.views(torch.arange(6), 1)
    # As many workers as there can be, and each of them has nothing left to do.
    for done in [batch.work for batch in feed._under_way]:
        for part in done:
            part.result()
    assert Counted.reads == 6 * (1 + feeds.AHEAD)
    feed.close()


def test_sixteen_bits_a_colour_lose_the_lower_eight(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 2**16, (20, 20, 3))
    deep_png(tmp_path / "deep.png", levels)
    assert np.array_equal(fitted(tmp_path / "deep.png", 20), levels >> 8)


@pytest.mark.parametrize(
    ("name", "dtype", "mode"), [("a.png", "u2", "I;16"), ("a.tif", "i4", "I"), ("a.tif", "f4", "F")]
)
def test_deep_greys_are_refused_and_not_clipped_to_white(tmp_path: Path, name: str, dtype: str, mode: str) -> None:
    Image.fromarray(np.full((20, 20), 3000).astype(dtype)).save(tmp_path / name)
    refusal = rf"image '.*{name}' cannot be decoded: its mode is {mode}, greys of more than 8 bits"
    with pytest.raises(InputError, match=refusal):
        fitted(tmp_path / name, 16)
    with pytest.raises(InputError, match=refusal):
        cut(tmp_path / name, torch.tensor([[0, 0, 20, 20]]), torch.empty(1, 3, 8, 8, dtype=torch.uint8))


def test_photographs_stay_as_they_lie_in_their_file_whatever_exif_says(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    picture("RGB").save(tmp_path / "turned.jpg", exif=turned, quality=95)
    picture("RGB").save(tmp_path / "plain.jpg", quality=95)
    files = ImageFiles([tmp_path / "turned.jpg", tmp_path / "plain.jpg"], 16)
    assert files.sizes().tolist() == [[48, 64], [48, 64]]
    assert torch.equal(*files[:])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1)])
def test_photographs_one_pixel_high_have_views(tmp_path: Path, size: tuple[int, int]) -> None:
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            picture("RGB").resize(size).save(tmp_path / split / name / "1.png")
    config = streamed(tmp_path, augment__size=16)
    [views] = made(config, [torch.tensor([0, 1])])
    assert views.shape == (2, 2, 3, 16, 16)
    assert views.isfinite().all()


def test_a_strip_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    picture("RGB").resize((5000, 1)).save(tmp_path / "strip.png")
    with pytest.raises(
        InputError, match=r"strip\.png' .*: 5000 x 1 pixels resized to a shorter side of 224 are 250,880,000"
    ):
        fitted(tmp_path / "strip.png", 224)


def test_who_leaves_early_waits_for_the_files_at_hand_alone(mixed: Path) -> None:
    files = ImageFiles([Counted(mixed / "train" / "a" / "000.jpg")] * 3000, 224)
    Counted.reads = 0
    coming = files.decoded([slice(0, 1), slice(1, None)])
    assert next(coming).shape == (1, 3, 224, 224)
    coming.close()
    assert 1 <= Counted.reads < 1500


def test_the_log_says_when_a_run_waits_for_its_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "SILENCE", -1.0)
    with display.Display(1) as shown:
        shown.show(News("one", state="started"))
        for waiting in (0.02, 0.4):
            shown.show(News("one", "running", trainer.Progress(1, 2, 100.0, -0.5, 0.9, waiting=waiting)))
    quiet, loud = [line for line in capsys.readouterr().err.splitlines() if "step 1 of 2" in line]
    assert "waiting" not in quiet
    assert "waiting for data 40 %" in loud


def test_only_folders_of_images_are_streamed() -> None:
    with pytest.raises(InputError, match=r"data\.stream: found true with data\.name 'digits'; only imagefolder can be"):
        build("simsiam", {"data.stream": True})


def test_photographs_at_224_pixels_train_and_are_evaluated_from_their_files(tmp_path: Path) -> None:
    root = SHARED / "clothing-10"
    if not root.is_dir():
        pytest.skip("shared/data/clothing-10 is absent")
    chosen = {key.replace(".", "__"): value for key, value in AUGMENT["imagenet"].items()}
    few = {"data__train_images": 40, "data__test_images": 20, "data__image_size": 224, "train__epochs": 1}
    config = streamed(root, **{**chosen, **few, "train__batch": 20, "network__width": 2})
    assert trained(config, tmp_path / "files")["state"] == "done"
    rows = pd.read_csv(tmp_path / "files" / "metrics.csv", keep_default_na=False)
    assert rows[(rows["metric"] == "loss")]["value"].astype(float).between(-1, 1).all()
    # The start is read from clean pixels, which are those of the run in memory.
    trained(
        streamed(root, **{**chosen, **few, "train__batch": 20, "network__width": 2, "data__stream": False}),
        tmp_path / "memory",
    )
    other = pd.read_csv(tmp_path / "memory" / "metrics.csv", keep_default_na=False)
    assert rows[rows["step"] == 0].equals(other[other["step"] == 0])
