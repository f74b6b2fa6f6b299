"""Every source gives the same kind of tensors, selections are stratified and fixed, and bad input is named."""

from __future__ import annotations

import gzip
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, STL10

from collapse_lab.data import Images, load, statistics
from collapse_lab.errors import InputError
from collapse_lab.settings import DataConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
UNPACK = SHARED.parent / "tools" / "unpack_cifar10.py"
needs_fashion = pytest.mark.skipif(not (SHARED / "fashion-mnist").is_dir(), reason="no Fashion-MNIST beside the clone")
needs_cifar = pytest.mark.skipif(not UNPACK.is_file(), reason="no CIFAR-10 beside the clone")
needs_clothing = pytest.mark.skipif(not (SHARED / "clothing-10").is_dir(), reason="no photographs beside the clone")


def check(images: Images) -> None:
    """What every source promises."""
    for pixels, labels in ((images.train, images.train_labels), (images.test, images.test_labels)):
        assert pixels.dtype == torch.uint8
        assert pixels.is_contiguous()
        assert labels.dtype == torch.int64
        assert labels.shape == pixels.shape[:1]
    assert images.train.shape[1:] == images.test.shape[1:]
    everything = set(range(len(images.classes)))
    assert set(images.train_labels.tolist()) - {-1} == everything
    assert set(images.test_labels.tolist()) == everything


def rows(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


# digits


def test_digits_are_a_fixed_stratified_split_of_scikit_learns_images() -> None:
    images = load(DataConfig("digits"))
    check(images)
    assert (len(images.train), len(images.test), images.name) == (1437, 360, "digits")
    original = load_digits()
    expected = sorted(np.rint(original.images * 255 / 16).astype(np.uint8).reshape(-1, 64).tolist())
    assert sorted(torch.cat([images.train, images.test]).flatten(1).tolist()) == expected
    share = images.test_labels.bincount() / torch.as_tensor(original.target).bincount()
    assert (share - 360 / 1797).abs().max() < 0.01
    # The split itself, so that numbers of different releases can be compared.
    assert images.test_labels[:12].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2]
    assert images.test.long().sum().item() == 1_790_819


def test_a_validation_split_leaves_the_test_images_out() -> None:
    whole, held = load(DataConfig("digits")), load(DataConfig("digits", validation=0.25))
    check(held)
    assert sorted(rows(held.train) + rows(held.test)) == sorted(rows(whole.train))
    share = held.test_labels.bincount() / whole.train_labels.bincount()
    assert (share - 0.25).abs().max() < 0.01
    again = load(DataConfig("digits", validation=0.25))
    assert torch.equal(held.test, again.test)
    assert held.name == "digits, tested on 0.25 of its training images"


def test_a_limit_keeps_the_first_of_each_class_in_the_original_order() -> None:
    whole, part = load(DataConfig("digits")), load(DataConfig("digits", train_images=50, test_images=20))
    seen, expected = dict.fromkeys(range(10), 0), []
    for row, label in enumerate(whole.train_labels.tolist()):
        seen[label] += 1
        if seen[label] <= 5:
            expected.append(row)
    assert torch.equal(part.train, whole.train[expected])
    assert torch.equal(part.train_labels, whole.train_labels[expected])
    assert part.test_labels.bincount().tolist() == [2] * 10
    assert part.name == "digits, 50 of 1,437 training images, 20 of 360 test images"


def test_the_validation_images_do_not_depend_on_the_number_of_training_images() -> None:
    few, many = (load(DataConfig("digits", validation=0.2, train_images=count)) for count in (100, 900))
    assert torch.equal(few.test, many.test)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": 9}, "data.train_images: found 9; allowed are multiples of 10 up to 1390"),
        ({"train_images": 1437}, "smallest of which has 139 images"),
        ({"test_images": 500}, "data.test_images: found 500; allowed are multiples of 10 up to 350"),
        ({"validation": 0.001}, "data.validation: 0.001 of 1437 labelled images in 10 classes cannot be held out"),
        ({"validation": 0.999}, "data.validation: 0.999"),
    ],
)
def test_impossible_selections_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as refused:
        load(DataConfig("digits", **options))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_images_move_to_a_device_together() -> None:
    moved = load(DataConfig("digits")).to("meta")
    assert {tensor.device.type for tensor in (moved.train, moved.train_labels, moved.test, moved.test_labels)} == {
        "meta"
    }


# statistics


def test_statistics_equal_the_mean_and_deviation_of_the_float_images() -> None:
    train = torch.randint(0, 256, (50, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = statistics(train)
    values = train.double().div(255).transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean, values.mean(1).float())
    torch.testing.assert_close(std, values.std(1, correction=0).float())


def test_statistics_refuse_a_constant_channel() -> None:
    train = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    train[:, 1] = 7
    with pytest.raises(InputError, match="channel 1 is 7 in every training image"):
        statistics(train)


# torchvision's data sets


@needs_fashion
def test_fashion_mnist_is_read_and_unpacked_without_a_network(tmp_path: Path) -> None:
    shutil.copytree(SHARED / "fashion-mnist", tmp_path, dirs_exist_ok=True)
    with pytest.raises(InputError, match="to fetch or unpack it there"):
        load(DataConfig("fashion-mnist", root=tmp_path))
    images = load(DataConfig("fashion-mnist", root=tmp_path, download=True))
    check(images)
    assert (images.train.shape, images.test.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert images.name == "Fashion-MNIST"
    raw = SHARED / "fashion-mnist" / "FashionMNIST" / "raw"
    with gzip.open(raw / "t10k-images-idx3-ubyte.gz") as pixels, gzip.open(raw / "t10k-labels-idx1-ubyte.gz") as labels:
        assert images.test.numpy().tobytes() == pixels.read()[16:]
        assert bytes(images.test_labels.tolist()) == labels.read()[8:]
    part = load(DataConfig("fashion-mnist", root=tmp_path, train_images=10_000))
    assert part.train_labels.bincount().tolist() == [1000] * 10

    (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(InputError, match="holds no complete Fashion-MNIST"):
        load(DataConfig("fashion-mnist", root=tmp_path))


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_cifar10_is_read_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    pixels = random_pixels(20, 3, 32, 32)
    files = {"data_batch_1": pixels, "test_batch": pixels[::-1]}
    for name, images in files.items():
        (folder / name).write_bytes(pickle.dumps({"data": images.reshape(20, -1), "labels": [*range(10)] * 2}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    # Checksums of the published files are the only thing taken out of torchvision's reader.
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    images = load(DataConfig("cifar10", root=tmp_path))
    check(images)
    assert torch.equal(images.train, torch.from_numpy(pixels))
    assert torch.equal(images.test, images.train.flip(0))
    assert images.classes == tuple("abcdefghij")


@pytest.fixture
def stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    files = {"train_X.bin": 20, "unlabeled_X.bin": 30, "test_X.bin": 10}
    pixels = random_pixels(60, 3, 96, 96)
    for name, images in zip(files, np.split(pixels, np.cumsum([*files.values()])[:-1]), strict=True):
        # STL-10 is stored column by column.
        (folder / name).write_bytes(images.transpose(0, 1, 3, 2).tobytes())
    for name, repeats in (("train_y.bin", 2), ("test_y.bin", 1)):
        (folder / name).write_bytes(bytes([*range(1, 11)] * repeats))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    monkeypatch.setattr(STL10, "train_list", [["train_X.bin", None], ["train_y.bin", None], ["unlabeled_X.bin", None]])
    monkeypatch.setattr(STL10, "test_list", [["test_X.bin", None], ["test_y.bin", None]])
    return tmp_path


def test_stl10_trains_on_the_unlabelled_images_too(stl10: Path) -> None:
    images = load(DataConfig("stl10", root=stl10))
    check(images)
    pixels = torch.from_numpy(random_pixels(60, 3, 96, 96))
    assert torch.equal(torch.cat([images.train, images.test]), pixels)
    assert images.labelled.tolist() == [*range(20)]
    assert (images.train_labels[20:] == -1).all()


def test_unlabelled_images_fill_up_and_are_never_held_out(stl10: Path) -> None:
    filled = load(DataConfig("stl10", root=stl10, train_images=25))
    assert filled.train_labels.tolist() == [*range(10)] * 2 + [-1] * 5
    assert load(DataConfig("stl10", root=stl10, train_images=10)).train_labels.tolist() == [*range(10)]
    held = load(DataConfig("stl10", root=stl10, validation=0.5))
    check(held)
    assert (len(held.test), len(held.labelled), len(held.train)) == (10, 10, 40)
    with pytest.raises(InputError, match="up to 50 with unlabelled images"):
        load(DataConfig("stl10", root=stl10, train_images=51))


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "mnist", "fashion-mnist", "imagefolder", "npz"])
def test_a_missing_root_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"data.root: none given; data set '{name}' needs "):
        load(DataConfig(name))
    missing = tmp_path / "nowhere"
    with pytest.raises(InputError) as refused:
        load(DataConfig(name, root=missing))
    assert f"{missing}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_download_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"data\.download: MNIST could not be fetched into '.*file'"):
        load(DataConfig("mnist", root=tmp_path / "file", download=True))


# imagefolder


@pytest.fixture
def clothing(tmp_path: Path) -> Path:
    root = tmp_path / "clothing"
    for split in ("train", "val", "test"):
        for name in ("dress", "hat", "shoes"):
            (root / split / name).mkdir(parents=True)
            for path in sorted((SHARED / "clothing-10" / split / name).iterdir())[:4]:
                shutil.copyfile(path, root / split / name / path.name)
    return root


@needs_clothing
def test_imagefolder_resizes_the_shorter_side_and_crops_the_centre(clothing: Path) -> None:
    images = load(DataConfig("imagefolder", root=clothing, image_size=48))
    check(images)
    assert (images.train.shape, images.test.shape) == ((12, 3, 48, 48), (12, 3, 48, 48))
    assert (images.classes, images.name) == (("dress", "hat", "shoes"), "clothing at 48 px")
    for row, path in enumerate(sorted((clothing / "val").glob("*/*.jpg"))):
        with Image.open(path) as image:
            width, height = image.size
            scale = 48 / min(width, height)
            small = image.convert("RGB").resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
        left, top = round((small.width - 48) / 2), round((small.height - 48) / 2)
        expected = np.asarray(small)[top : top + 48, left : left + 48]
        assert np.array_equal(images.test[row].permute(1, 2, 0).numpy(), expected)


@needs_clothing
def test_imagefolder_decodes_only_what_is_kept_and_reads_test_where_there_is_no_val(clothing: Path) -> None:
    whole = load(DataConfig("imagefolder", root=clothing, image_size=32))
    for name in whole.classes:
        sorted((clothing / "train" / name).iterdir())[-1].write_bytes(b"broken")
    part = load(DataConfig("imagefolder", root=clothing, image_size=32, train_images=6))
    assert torch.equal(part.train, whole.train[[0, 1, 4, 5, 8, 9]])
    assert torch.equal(part.test, whole.test)
    shutil.rmtree(clothing / "val")
    other = load(DataConfig("imagefolder", root=clothing, image_size=32, train_images=6))
    assert not torch.equal(other.test, whole.test)


def broken_image(root: Path) -> Path:
    path = sorted((root / "train" / "hat").iterdir())[1]
    path.write_bytes(path.read_bytes()[:2000])
    return path


def text_image(root: Path) -> Path:
    path = root / "val" / "shoes" / "zz.png"
    path.write_text("not an image")
    return path


def empty_class(root: Path) -> Path:
    (root / "train" / "coat").mkdir()
    return root / "train"


def missing_class(root: Path) -> Path:
    shutil.rmtree(root / "val" / "hat")
    return root / "val"


def unknown_class(root: Path) -> Path:
    shutil.rmtree(root / "train" / "hat")
    return root / "val"


def no_classes(root: Path) -> Path:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    return root / "train"


def no_train(root: Path) -> Path:
    shutil.rmtree(root / "train")
    return root / "train"


def no_test(root: Path) -> Path:
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "test")
    return root / "val"


@needs_clothing
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_image, "cannot be decoded"),
        (text_image, "cannot be decoded"),
        (empty_class, "coat"),
        (missing_class, "no class folder for hat"),
        (unknown_class, "classes hat are not among the training images"),
        (no_classes, "is not a folder of class folders"),
        (no_train, "does not exist; needed are train/<class> and val/<class>"),
        (no_test, "does not exist; needed are train/<class> and val/<class>"),
    ],
)
def test_a_damaged_imagefolder_is_named(clothing: Path, damage: Callable[[Path], Path], message: str) -> None:
    place = damage(clothing)
    with pytest.raises(InputError) as refused:
        load(DataConfig("imagefolder", root=clothing, image_size=32))
    assert message in str(refused.value)
    assert f"'{place}'" in str(refused.value)
    assert "\n" not in str(refused.value)


@needs_clothing
def test_images_that_do_not_fit_in_memory_are_refused_with_their_size(clothing: Path) -> None:
    # 12 images of 3 x 10^6 x 10^6 bytes are 33,527.6 GiB.
    with pytest.raises(InputError, match=r"data.image_size: 12 images .* need 33,527.6 GiB"):
        load(DataConfig("imagefolder", root=clothing, image_size=1_000_000))


# npz


@needs_cifar
def test_npz_holds_cifar10_as_the_unpacking_tool_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "cifar10-jpeg-q75.npz"
    subprocess.run([sys.executable, UNPACK, path, "--per-class", "20"], check=True, capture_output=True)
    images = load(DataConfig("npz", root=path))
    check(images)
    assert (images.train.shape, images.test.shape) == ((200, 3, 32, 32), (40, 3, 32, 32))
    assert (images.classes[0], images.name) == ("airplane", "cifar10-jpeg-q75")
    with np.load(path) as file:
        assert np.array_equal(images.train.permute(0, 2, 3, 1).numpy(), file["train_images"])
        assert np.array_equal(images.test_labels.numpy(), file["test_labels"])


def arrays() -> dict[str, np.ndarray]:
    return {
        "train_images": random_pixels(6, 5, 4, 1),
        "train_labels": np.array([0, 1, 2, 0, 1, 2]),
        "test_images": random_pixels(3, 5, 4, 1),
        "test_labels": np.array([2, 1, 0], dtype=np.uint8),
    }


def test_npz_without_names_numbers_its_classes(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "own.npz", **arrays())
    images = load(DataConfig("npz", root=tmp_path / "own.npz"))
    check(images)
    assert (images.classes, images.train.shape) == (("0", "1", "2"), (6, 1, 5, 4))
    assert images.test_labels.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "train_images"),
        ({"test_labels": None}, "test_labels"),
        ({"train_images": np.ones((6, 5, 4, 1), np.float32)}, "train_images is float32 of shape (6, 5, 4, 1)"),
        ({"train_images": random_pixels(6, 5, 4)}, "train_images is uint8 of shape (6, 5, 4)"),
        ({"train_images": random_pixels(6, 3, 5, 4)}, "allowed is uint8 of shape (N, H, W, C) with C 1 or 3"),
        ({"test_images": random_pixels(3, 4, 4, 1)}, "both splits need the same size"),
        ({"test_images": random_pixels(0, 5, 4, 1), "test_labels": np.zeros(0, int)}, "N, H and W at least 1"),
        ({"train_labels": np.array([0, 1, 2])}, "6 train_images but 3 train_labels"),
        ({"train_labels": np.array([0.0, 1, 2, 0, 1, 2])}, "train_labels is float64"),
        ({"train_labels": np.array(3)}, "train_labels is int64 of shape ()"),
        ({"train_labels": np.array([0, 2, 2, 0, 2, 2])}, "no image of class 1"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, 2**40])}, f"train_labels go up to {2**40} with 6 images"),
        ({"train_labels": np.array([0, 1, 2, 0, 1, -2])}, "labels from -2 to 2; allowed are 0 to 2"),
        ({"test_labels": np.array([0, 0, 1])}, "no image of class 2"),
        ({"test_labels": np.array([0, 1, -1])}, "unlabelled test images"),
        ({"label_names": np.array(["a", "b"])}, "labels from 0 to 2; allowed are 0 to 1"),
        ({"train_images": np.array([None] * 6)}, "Object arrays cannot be loaded"),
    ],
)
def test_unusable_arrays_are_refused(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **{name: array for name, array in (arrays() | changes).items() if array is not None})
    with pytest.raises(InputError) as refused:
        load(DataConfig("npz", root=path))
    assert message in str(refused.value)
    assert f"'{path}'" in str(refused.value)
    assert "\n" not in str(refused.value)


def truncated(path: Path) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    np.savez_compressed(path, **arrays())
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)


def single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, random_pixels(6, 5, 4, 1))


@pytest.mark.parametrize(
    "write",
    [truncated, flipped, single_array, Path.touch, Path.mkdir, lambda path: path.write_text("no archive at all")],
    ids=["truncated", "flipped", "single-array", "empty", "folder", "text"],
)
def test_a_damaged_archive_is_named(tmp_path: Path, write: Callable[[Path], object]) -> None:
    path = tmp_path / "own.npz"
    write(path)
    with pytest.raises(InputError, match=f"data.root: '{path}' cannot be read as npz") as refused:
        load(DataConfig("npz", root=path))
    assert "\n" not in str(refused.value)
