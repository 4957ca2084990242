"""Crops and flips."""

import torch

from regrow.training.augment import augmented

SHAPE = (2, 8, 8)


def draw(x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augmented(x, SHAPE, torch.Generator().manual_seed(seed))


def test_the_generator_decides() -> None:
    x = torch.randn(16, 128)
    assert torch.equal(draw(x), draw(x))
    assert not torch.equal(draw(x), draw(x, seed=1))


def test_every_image_is_a_shifted_or_mirrored_self() -> None:
    x = torch.arange(64.0).reshape(8, 8)
    planes = torch.stack([x, 100 + x]).reshape(1, -1)
    padded = torch.nn.functional.pad(x[None, None], (1,) * 4, mode="reflect")[0, 0]
    crops = [padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    allowed = [*crops, *(crop.flip(1) for crop in crops)]
    seen = set()
    for image in draw(planes.repeat(200, 1)).view(-1, *SHAPE):
        found = [i for i, crop in enumerate(allowed) if torch.equal(image[0], crop)]
        assert len(found) == 1
        assert torch.equal(image[1], 100 + image[0])
        seen.add(found[0])
    assert len(seen) == 18


def test_images_of_a_batch_differ() -> None:
    x = torch.randn(1, 128).repeat(50, 1)
    assert len({tuple(row.tolist()) for row in draw(x)}) > 5
