"""Images of another data set in the shape of an encoder's own."""

from dataclasses import replace

import torch
from torchvision.transforms.v2 import functional

from collapse_lab import data
from collapse_lab.settings import DataConfig
from collapse_lab.transfer import adapted

DIGITS = data.load(DataConfig("digits", train_images=100))
COLOURS = torch.randint(0, 256, (100, 3, 20, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
PHOTOGRAPHS = replace(DIGITS, train=COLOURS, test=COLOURS[:40], test_labels=DIGITS.test_labels[:40])


def test_grey_is_repeated_and_comes_back_from_it_unchanged():
    coloured = adapted(DIGITS, 3, (8, 8))
    assert coloured.train.shape == (100, 3, 8, 8)
    assert all(torch.equal(channel, DIGITS.train[:, 0]) for channel in coloured.train.unbind(1))
    # The three weights sum to 0.9999.
    assert (adapted(coloured, 1, (8, 8)).test.int() - DIGITS.test.int()).abs().max() == 0


def test_colours_become_the_luminance_that_torchvision_gives():
    grey = adapted(PHOTOGRAPHS, 1, (20, 12)).train
    expected = functional.rgb_to_grayscale(COLOURS.float()).round()
    assert (grey.float() - expected).abs().max() <= 1
    assert grey.dtype == torch.uint8


def test_resized_as_torchvision_does():
    small = adapted(PHOTOGRAPHS, 3, (8, 8)).train
    expected = functional.resize(COLOURS, [8, 8], antialias=True)
    assert (small.int() - expected.int()).abs().max() <= 1


def test_images_that_fit_keep_their_bytes_and_labels_stay():
    assert adapted(DIGITS, 1, (8, 8)).train is DIGITS.train
    small = adapted(PHOTOGRAPHS, 1, (6, 6))
    assert (small.train.shape, small.test.shape) == ((100, 1, 6, 6), (40, 1, 6, 6))
    assert small.train_labels is PHOTOGRAPHS.train_labels
    assert small.classes == PHOTOGRAPHS.classes
