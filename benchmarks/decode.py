"""Who decodes large photographs fastest: threads or a DataLoader's processes, PIL or torchvision.io.

    python benchmarks/decode.py --images DIR

Every contender decodes the same JPEG files once and cuts two random boxes of area 0.2 to 1 out of each, resized to
224 x 224 with antialias, uint8. Contenders take turns, round by round. Two numbers each: images per second of the clock,
which depends on what else the machine does, and milliseconds of processor time an image, those of worker processes
included (their start too), which depend on it far less. torchvision warns that its decoders are going to be removed: they
stand here to say what that costs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import measure
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file

SIZE = 224
Crops = Callable[[tuple[int, Path]], list[Tensor]]


def boxes(number: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Two boxes of an image, the same for every contender: top, left, height, width."""
    draw, found = np.random.default_rng(number), []
    for side in np.sqrt(draw.uniform(0.2, 1, 2)):
        h, w = int(height * side), int(width * side)
        found.append((int(draw.integers(0, height - h + 1)), int(draw.integers(0, width - w + 1)), h, w))
    return found


def resized(pixels: Tensor, number: int) -> list[Tensor]:
    """Boxes of uint8 pixels (3, H, W), resized by torch."""
    cuts = [pixels[None, :, t : t + h, x : x + w] for t, x, h, w in boxes(number, *pixels.shape[1:])]
    return [interpolate(cut, (SIZE, SIZE), mode="bilinear", antialias=True)[0] for cut in cuts]


def torchvision_io(item: tuple[int, Path]) -> list[Tensor]:
    """torchvision.io decodes, torch resizes."""
    return resized(decode_jpeg(read_file(str(item[1])), mode=ImageReadMode.RGB), item[0])


def pil_and_torch(item: tuple[int, Path]) -> list[Tensor]:
    """PIL decodes, torch resizes."""
    with Image.open(item[1]) as image:
        return resized(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1), item[0])


def pil(item: tuple[int, Path]) -> list[Tensor]:
    """PIL decodes and resizes."""
    with Image.open(item[1]) as file:
        image = file.convert("RGB")
    cuts = [image.crop((x, t, x + w, t + h)) for t, x, h, w in boxes(item[0], image.height, image.width)]
    made = [np.array(cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for cut in cuts]
    return [torch.from_numpy(array).permute(2, 0, 1) for array in made]


class Files(Dataset):
    """Crops of files by number, for a DataLoader."""

    def __init__(self, crops: Crops, files: Sequence[Path]) -> None:
        self.crops, self.files = crops, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor:
        return torch.stack(self.crops((number, self.files[number])))


def in_threads(crops: Crops, files: Sequence[Path], workers: int) -> None:
    """All files, by threads of this process, into a tensor of their own."""
    made = torch.empty(len(files), 2, 3, SIZE, SIZE, dtype=torch.uint8)

    def fill(item: tuple[int, Path]) -> None:
        made[item[0]] = torch.stack(crops(item))

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(fill, enumerate(files)):
            pass


def in_processes(crops: Crops, files: Sequence[Path], workers: int) -> None:
    """All files, by the processes of a DataLoader, 64 a batch."""
    for _ in DataLoader(Files(crops, files), batch_size=64, num_workers=workers):
        pass


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with .jpg files in it, at any depth")
    parser.add_argument("--count", type=int, default=512, help="how many of them")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=measure.ROOT / "benchmarks" / "results" / "decode.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(arguments.images.rglob("*.jpg"))[: arguments.count]
    workers = arguments.workers
    contenders = {
        "torchvision.io in threads": partial(in_threads, torchvision_io, files, workers),
        "PIL, resized by torch, in threads": partial(in_threads, pil_and_torch, files, workers),
        "PIL in threads": partial(in_threads, pil, files, workers),
        "torchvision.io in a DataLoader": partial(in_processes, torchvision_io, files, workers),
        "PIL in a DataLoader": partial(in_processes, pil, files, workers),
    }
    clock: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds + 1):
        for name, run in contenders.items():
            started = measure.spent()
            run()
            taken = measure.spent() - started
            clock[name].append(len(files) / taken.seconds)
            processor[name].append(1000 * taken.processor_seconds / len(files))
    # The first round warms the file cache.
    rates = {name: measure.summary(values[1:]) for name, values in clock.items()}
    costs = {name: measure.summary(values[1:]) for name, values in processor.items()}
    sizes = [Image.open(path).size for path in files[:100]]
    options = f"--count {len(files)} --workers {workers} --rounds {arguments.rounds}"
    report = {
        "what": f"two {SIZE} px crops of each of {len(files)} JPEG files, {workers} workers, one thread each",
        "images": f"{arguments.images.parent.name}/{arguments.images.name}, median {median(w for w, _ in sizes):.0f} x "
        f"{median(h for _, h in sizes):.0f}",
        "images_per_second": rates,
        "processor_milliseconds_an_image": costs,
        "machine": measure.machine(),
        "commit": measure.commit(),
        "command": f"python benchmarks/decode.py --images {arguments.images.name} {options}",
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for name in contenders:
        rate, cost = rates[name]["median"], costs[name]["median"]
        print(f"{name:36s} {rate:8.0f} images/s  {cost:6.2f} ms of processor an image")


if __name__ == "__main__":
    main()
