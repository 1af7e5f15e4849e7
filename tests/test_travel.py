"""What is sent to a GPU: 8 bits where these are all that there is, the same numbers in any case."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featurize.images.scale import Scale
from featurize.images.unit_range import unit_range
from featurize.travel import Travel, packed, travelled

EIGHT_BITS = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
SIXTEEN_BITS = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)


def test_every_value_of_8_bits_travels_as_a_byte_and_comes_back() -> None:
    pixels = unit_range(EIGHT_BITS, Scale.parse("dtype"))
    sent = packed(pixels)
    assert sent.dtype == torch.uint8
    np.testing.assert_array_equal(sent.float() / 255, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "pixels",
    [
        unit_range(SIXTEEN_BITS, Scale.parse("dtype")),
        unit_range(EIGHT_BITS, Scale.parse("image:1:99")),
        np.full((2, 2, 1), 0.1234, np.float32),
    ],
    ids=["16 bits", "percentiles", "floats"],
)
def test_other_values_travel_whole(pixels: np.ndarray) -> None:
    sent = packed(pixels)
    assert sent.dtype == torch.float32
    np.testing.assert_array_equal(sent, pixels.transpose(2, 0, 1))


def test_on_the_processor_nothing_is_changed() -> None:
    pixels = unit_range(EIGHT_BITS, Scale.parse("dtype"))
    np.testing.assert_array_equal(travelled(pixels, torch.device("cpu")), pixels.transpose(2, 0, 1))


@pytest.mark.gpu
def test_on_a_gpu_the_numbers_are_the_same_but_for_the_last_bit() -> None:
    for stored in (EIGHT_BITS, SIXTEEN_BITS):
        pixels = unit_range(stored, Scale.parse("dtype"))
        there = travelled(pixels, torch.device("cuda"))
        assert there.device.type == "cuda"
        np.testing.assert_allclose(there.cpu(), pixels.transpose(2, 0, 1), rtol=2e-7)


@pytest.mark.gpu
def test_images_sent_beside_a_busy_gpu_are_there_when_they_are_used() -> None:
    device = torch.device("cuda")
    travel, busy = Travel(device), torch.rand(4096, 4096, device=device)
    sent = []
    for number in range(64):
        for _ in range(4):
            busy = (busy @ busy).clamp_(0, 1)
        with travel.on_the_way():
            sent.append(travelled(np.full((224, 224, 3), number / 255, np.float32), device))
    travel.arrive(sent)
    means = torch.stack([image.mean() for image in sent])
    torch.testing.assert_close(means.cpu(), torch.arange(64) / 255)
