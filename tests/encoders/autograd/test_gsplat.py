"""Engine gsplat with a stand-in for its kernels: what it is handed, batches, memory. With a GPU: gsplat itself."""

import inspect

import numpy as np
import pytest
import torch

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, OVER
from encoders.autograd.descent import first_frames
from encoders.autograd.gsplat import GsplatEncoder
from encoders.autograd.gsplat_available import load_gsplat
from encoders.autograd.gsplat_tiles import (
    LEAST_OPACITY,
    MOST_ENTRIES,
    Rasteriser,
    TiledRender,
    bytes_per_image,
    conics,
    most_images,
    radii,
    tile_grid,
)
from encoders.autograd.reference import frame_weights, render_frame_over
from encoders.base import FitSettings
from encoders.engines import create_encoder
from encoders.frame import COLOUR
from encoders.quality import psnr_of_mean_error
from encoders.recipe import OverRecipe
from encoders.render import composite
from tests.encoders.autograd.gsplat_stand_in import StandIn, kept
from tests.encoders.encoder_contract import EncoderContract, quality
from tests.encoders.splat_examples import smooth_images

SIZES = [(1, 1), (32, 32), (28, 17), (33, 20), (50, 70)]


def frames(images=2, gaussians=12, channels=3, height=32, width=32, seed=0):
    """Wide, thin, tilted, clear, nearly clear and off-canvas Gaussians: float32 [image, gaussian, 6 + channel]."""
    rng = np.random.default_rng(seed)
    shape = (images, gaussians)
    frame = np.stack(
        [
            rng.uniform(-3, width + 3, shape),
            rng.uniform(-3, height + 3, shape),
            rng.uniform(-2.5, 1.2, shape),
            rng.uniform(-0.6, 0.6, shape),
            rng.uniform(-2.5, 1.2, shape),
            *rng.uniform(0, 1, (channels, *shape)),
            rng.choice([0.0, 0.003, 0.3, 0.9, 1.0], shape),
        ],
        axis=-1,
    )
    return torch.from_numpy(frame.astype(np.float32))


def as_gsplat(frame, height, width):
    """The codec with gsplat's cut-offs, densely."""
    opacity = frame[..., -1, None, None] * frame_weights(frame, height, width)
    return composite(torch.stack([kept(one) for one in opacity]), frame[..., COLOUR:-1])


class TestGsplatEngine(EncoderContract):
    engine = "gsplat"
    codec = OVER
    codecs = (OVER,)

    def create(self, workers=None, **settings):
        return GsplatEncoder(
            FitSettings(**{"gaussians": 12, "steps": 30, "codec": OVER, **settings}), rasteriser=StandIn()
        )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_values_and_gradients_are_those_of_the_dense_formula(height, width, channels):
    frame = frames(channels=channels, height=height, width=width)
    results = []
    for render in (TiledRender(StandIn(), height, width), lambda one: as_gsplat(one, height, width)):
        leaf = frame.clone().requires_grad_()
        image = render(leaf)
        (gradient,) = torch.autograd.grad(image.square().sum(), leaf)
        results.append((image.detach(), gradient))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=2e-5)
    scale = results[1][1].abs().amax(dim=(0, 1)) + 1e-3
    torch.testing.assert_close(results[0][1] / scale, results[1][1] / scale, rtol=0, atol=2e-3)
    # What gsplat leaves out is less than an opacity of 1/255 for each Gaussian.
    exact = render_frame_over(frame, height, width)
    assert (results[0][0] - exact).abs().max() < frame.shape[1] * LEAST_OPACITY + 0.001


@pytest.mark.parametrize(("height", "width"), [(33, 20), (50, 70)])
def test_every_tile_lists_whatever_it_shows_in_the_order_of_the_index(height, width):
    frame = frames(gaussians=40, height=height, width=width, seed=3)
    tile, rows, columns = tile_grid(height, width)
    offsets, entries = TiledRender(StandIn(), height, width)._lists(frame)
    starts = [*offsets.flatten().tolist(), len(entries)]
    opacity = frame[..., -1, None, None] * frame_weights(frame, rows * tile, columns * tile)
    for number in range(2 * rows * columns):
        listed = entries[starts[number] : starts[number + 1]]
        assert (listed.diff() > 0).all()
        image, row, column = number // (rows * columns), number // columns % rows * tile, number % columns * tile
        block = opacity[image, :, row : row + tile, column : column + tile]
        shown = torch.nonzero(block.amax(dim=(1, 2)) >= LEAST_OPACITY).flatten() + image * 40
        assert set(shown.tolist()) <= set(listed.tolist())
    assert len(entries) < 2 * rows * columns * 40


def test_one_tile_is_the_whole_image_and_needs_no_intersection():
    render = TiledRender(StandIn(), 32, 32)
    offsets, entries = render._lists(frames(images=3, gaussians=5))
    assert offsets.tolist() == [[[0]], [[5]], [[10]]]
    assert entries.tolist() == list(range(15))
    assert render._lists(frames(images=3, gaussians=5))[1] is entries
    assert render._lists(frames(images=2, gaussians=5))[1].tolist() == list(range(10))


def test_gsplat_takes_these_arguments_and_intersects_alike():
    gsplat = pytest.importorskip("gsplat")
    for name in ("rasterize_to_pixels", "isect_tiles", "isect_offset_encode"):
        asked = list(inspect.signature(getattr(Rasteriser, name)).parameters)[1:]
        assert list(inspect.signature(getattr(gsplat, name)).parameters)[: len(asked)] == asked, name
    from gsplat.cuda import _torch_impl

    height, width = 50, 70
    frame = frames(gaussians=9, height=height, width=width)
    tile, rows, columns = tile_grid(height, width)
    depths = torch.arange(9, dtype=torch.float32).expand(2, 9)
    means = frame[..., :2].contiguous()
    theirs = _torch_impl._isect_tiles(means, radii(frame), depths, tile, columns, rows)
    ours = StandIn().isect_tiles(means, radii(frame), depths, tile, columns, rows)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(
        StandIn().isect_offset_encode(ours[1], 2, columns, rows),
        _torch_impl._isect_offset_encode(theirs[1], 2, columns, rows),
    )


def test_conics_are_inverse_covariances():
    frame = frames(images=1, gaussians=6).double()
    a, b, c = torch.exp(frame[0, :, 2]), frame[0, :, 3], torch.exp(frame[0, :, 4])
    zero = torch.zeros_like(a)
    factor = torch.stack([torch.stack([a, b], -1), torch.stack([zero, c], -1)], -2)
    inverse = factor.transpose(1, 2) @ factor
    torch.testing.assert_close(
        conics(frame)[0], torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    )
    sigmas = torch.linalg.inv(inverse).diagonal(dim1=1, dim2=2).sqrt()
    reach = torch.sqrt(2 * torch.log((255 * frame[0, :, -1]).clamp(min=1)))
    assert ((radii(frame)[0] - reach[:, None] * sigmas) >= -1e-9).all()
    assert ((radii(frame)[0] - reach[:, None] * sigmas) < 1).all()


def test_counts_stay_within_32_bits():
    assert most_images(200, 32, 32) == MOST_ENTRIES // 200
    assert 1 <= most_images(20_000, 1024, 1024) <= MOST_ENTRIES // (20_000 * 64 * 64)
    assert most_images(100_000, 8192, 8192) == 1
    # Image and tile share 32 bits of a key.
    assert most_images(1, 2048, 2048) < 2**32 / (128 * 128)
    assert bytes_per_image(20_000, 1024, 1024, 3) < 500e6
    assert bytes_per_image(200, 32, 32, 3) < 1e6


@pytest.mark.slow
def test_a_batch_that_memory_does_not_hold_is_halved_and_nothing_is_lost(caplog):
    images = smooth_images(7, 12)
    settings = FitSettings(gaussians=8, steps=6, codec=OVER)
    whole = GsplatEncoder(settings, rasteriser=StandIn()).fit(images)
    card = StandIn(most_images=2)
    encoder = GsplatEncoder(settings, rasteriser=card)
    with caplog.at_level("WARNING", "splatspace"):
        parts = encoder.fit(images)
    np.testing.assert_allclose(parts.splats, whole.splats, atol=1e-4)
    assert card.batches == [7, 3, 1]
    assert "7 images at once do not fit" in caplog.text
    # The next call begins with what fitted.
    assert encoder.images_per_call(12, 12, 3) == 1


def test_the_batch_can_be_given():
    card = StandIn()
    settings = FitSettings(gaussians=4, steps=2, codec=OVER)
    GsplatEncoder(settings, rasteriser=card, batch=2).fit(smooth_images(5, 8))
    assert card.batches == [2, 1]
    with pytest.raises(JobError, match="batch of 0"):
        GsplatEncoder(settings, rasteriser=card, batch=0)


def test_an_image_that_memory_does_not_hold_is_an_error():
    encoder = GsplatEncoder(FitSettings(gaussians=8, steps=6, codec=OVER), rasteriser=StandIn(most_images=0))
    with pytest.raises(JobError, match=r"One image of 20x20 with 8 Gaussians.*fewer --gaussians"):
        encoder.fit(smooth_images(2))


def test_other_codecs_are_refused():
    with pytest.raises(JobError, match=r"additive/1.*--codec over"):
        GsplatEncoder(FitSettings(gaussians=8, codec=ADDITIVE), rasteriser=StandIn())


@pytest.mark.slow
def test_it_reaches_the_quality_of_the_reference():
    images = smooth_images(6, 24)
    settings = FitSettings(gaussians=25, steps=100, codec=OVER)
    reference = create_encoder("reference", settings).fit(images)
    fitted = GsplatEncoder(settings, rasteriser=StandIn()).fit(images)
    cost = psnr_of_mean_error(quality(reference, images, OVER)) - psnr_of_mean_error(quality(fitted, images, OVER))
    assert abs(cost) < 1.0


def test_the_fit_begins_with_the_recipes_opacity():
    frame = first_frames(smooth_images(2), FitSettings(gaussians=9, codec=OVER), OverRecipe(first_alpha=0.7))
    assert frame.shape == (2, 9, 9)
    np.testing.assert_array_equal(frame[..., -1], np.float32(0.7))


@pytest.mark.gpu
class TestOnCard:
    """gsplat's own kernels; skipped with the reason where the machine cannot compile them."""

    @pytest.fixture(scope="class")
    def rasteriser(self):
        try:
            return load_gsplat()
        except JobError as error:
            pytest.skip(str(error))

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_kernels_do_what_the_stand_in_does(self, rasteriser, height, width, channels):
        frame = frames(images=5, gaussians=60, channels=channels, height=height, width=width).cuda()
        results = []
        for kernels in (rasteriser, StandIn()):
            leaf = frame.clone().requires_grad_()
            image = TiledRender(kernels, height, width)(leaf)
            (gradient,) = torch.autograd.grad(image.square().sum(), leaf)
            results.append((image.detach(), gradient))
        # A value on the edge of a cut-off may fall to either side.
        assert ((results[0][0] - results[1][0]).abs() > 1e-4).float().mean() < 1e-3
        scale = results[1][1].abs().amax(dim=(0, 1)) + 1e-3
        assert ((results[0][1] - results[1][1]) / scale).abs().median() < 1e-3

    def test_quality_is_that_of_the_reference(self, rasteriser):
        images = smooth_images(64, 32)
        settings = FitSettings(gaussians=60, steps=200, codec=OVER)
        assert create_encoder("auto", settings).name == "gsplat"
        fitted, reference = (
            psnr_of_mean_error(quality(create_encoder(engine, settings).fit(images), images, OVER))
            for engine in ("gsplat", "reference")
        )
        assert fitted == pytest.approx(reference, abs=1.0)

    def test_a_photograph_of_a_megapixel(self, rasteriser):
        y, x = np.mgrid[:1024, :1024] / 1024
        waves = [np.sin(40 * x * (1 + y)), np.cos(30 * y), np.sin(25 * (x + y))]
        image = np.round(127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)[None]
        encoder = GsplatEncoder(FitSettings(gaussians=20_000, steps=60, codec=OVER, start="grid"))
        assert psnr_of_mean_error(quality(encoder.fit(image), image, OVER)) > 30
