"""Small stores to convert, and their decoded images."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from data_schemas.records import RowBlock, RowState, SourceRecord, StoreHeader, content_hash
from data_schemas.splats import CodecName, SplatDtype, layout_for
from data_schemas.stores.open import create_store, open_store
from encoders.decode import decode, to_uint8
from encoders.quality import psnr, ssim

GAUSSIANS, SIDE, BLOCK = 24, 20, 4


def splats_of(rng, images, layout, *, widest=0.3, signed=False):
    splats = np.empty((images, GAUSSIANS, layout.width))
    splats[..., :2] = rng.uniform(0.02, widest, (images, GAUSSIANS, 2))
    splats[..., 2] = rng.uniform(-0.95, 0.95, (images, GAUSSIANS))
    if layout.has_alpha:
        splats[..., layout.index("alpha")] = rng.uniform(0.2, 1, (images, GAUSSIANS))
    colours = (images, GAUSSIANS, layout.channels)
    splats[..., layout.colour_slice] = rng.uniform(-0.4 if signed else 0.0, 0.5, colours)
    splats[..., -2:] = rng.uniform(-1.1, 1.1, (images, GAUSSIANS, 2))
    return splats


@pytest.fixture
def make_store(built_stores: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A fresh copy of a store of ``built_stores`` under a name."""

    def make(name="source.zarr", **options):
        built = built_stores(Path(name).suffix, **options)
        (shutil.copytree if built.is_dir() else shutil.copyfile)(built, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def built_stores(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a store of 10 rows with a failed and an empty one; the images are decoded splats with noise."""

    folder = tmp_path_factory.mktemp("stores")

    @functools.cache
    def build(suffix, *, channels=1, alpha=False, signed=False, dtype="float32", widest=0.3, codec="additive/1"):
        path = folder / f"{len(list(folder.iterdir()))}{suffix}"
        layout = layout_for(channels, alpha=alpha)
        header = StoreHeader(
            codec=cast(CodecName, codec),
            layout=layout.name,
            gaussians=GAUSSIANS,
            height=SIDE,
            width=SIDE,
            channels=channels,
            dtype=cast(SplatDtype, dtype),
            colours="signed" if signed else "bounded",
            start="grid",
            anchors=tuple((float(x), 0.25) for x in np.linspace(-1, 1, GAUSSIANS)),
            engine="cpu",
            settings={"steps": 7},
            seed=3,
            source=SourceRecord(name="noise", split="test", digest="sha256:00"),
            block_rows=BLOCK,
        )
        rng = np.random.default_rng(7)
        with create_store(path, header) as store:
            for block, images in enumerate((4, 4, 2)):
                rows = RowBlock.empty(images, header)
                rows.splats[:] = splats_of(rng, images, layout, widest=widest, signed=signed)
                frame = {"layout": layout, "codec": "additive/1", "height": SIDE, "width": SIDE, "workers": 1}
                decoded = to_uint8(decode(rows.splats, **frame))
                assert rows.image is not None
                rows.image[:] = np.clip(decoded.astype(int) + rng.integers(-6, 7, decoded.shape), 0, 255)
                rows.psnr[:], rows.ssim[:] = psnr(decoded, rows.image), ssim(decoded, rows.image)
                rows.label[:] = rng.integers(0, 10, images)
                rows.steps[:], rows.dead[:] = 7, 1
                rows.state[:] = RowState.DONE
                rows.source_id[:] = [f"folder/image {4 * block + row}.png" for row in range(images)]
                for row in range(images):
                    rows.content_hash[row] = content_hash(rows.image[row])
                if block == 1:
                    blank = RowBlock.empty(images, header)
                    for row, state in ((1, RowState.FAILED), (2, RowState.EMPTY)):
                        for array in ("splats", "psnr", "ssim", "steps", "dead"):
                            getattr(rows, array)[row] = getattr(blank, array)[row]
                        rows.state[row] = state
                    rows.failure[1] = "the file is cut short"
                    rows.image[2], rows.content_hash[2], rows.label[2] = 0, 0, -1
                store.append([str(name) for name in rows.source_id])
                store.write_block(block, rows)
        return path

    return build


@pytest.fixture
def read_rows() -> Callable[[Path], tuple[StoreHeader, dict]]:
    """Header and all arrays of a store."""

    def read(path):
        with open_store(path) as store:
            return store.header, store.read(store.arrays)

    return read
