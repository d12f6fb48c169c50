"""The page in a real browser: search, filter, panels, canvas; nothing on the console, nothing wider than a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.decode import decode, to_uint8
from pipeline.report import build_report
from tests.browser import CHROMIUM, Browser
from tests.pipeline.report.conftest import MemoryStore, make_memory_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"),
]

HOSTILE = "</script><img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    made = make_memory_store(400, gaussians=4, size=(10, 12))
    made.rows.psnr[:] = 30 + np.arange(400) / 20
    made.rows.source_id[7] = HOSTILE
    return made


@pytest.fixture(scope="module")
def page(store: MemoryStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    build_report(store, folder, predictability_images=0)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def browser(page: Path, chromium: Browser) -> Iterator[Browser]:
    chromium.open(page, width=400)
    chromium.wait_for("document.getElementById('find-count').textContent.includes('images')")
    yield chromium
    assert chromium.ask("document.documentElement.scrollWidth") == chromium.ask("innerWidth")
    assert chromium.said == []


def type_into(browser: Browser, name: str, value: str, expected: int) -> None:
    browser.ask(
        f"(() => {{ const it = document.getElementById('find-{name}'); it.value = {value!r};"
        " document.getElementById('find-count').textContent = '';"
        " it.dispatchEvent(new Event('input')); })()"
    )
    browser.wait_for(f"document.getElementById('find-count').textContent === '{expected} of 400 images'")


def first_row(browser: Browser) -> str:
    return browser.ask("[...document.querySelector('#find-rows tr').children].map((one) => one.textContent).join('|')")


def test_any_image_is_found(browser: Browser) -> None:
    assert browser.ask("innerWidth") == 400
    assert first_row(browser).startswith("30.00|00000.png")
    type_into(browser, "below", "32", 40)
    type_into(browser, "class", "2", 13)  # square: rows 1, 4, ... 37
    type_into(browser, "sort", "best", 13)
    assert first_row(browser).startswith("31.85|00037.png")
    type_into(browser, "class", "", 40)
    type_into(browser, "name", "ONERROR", 1)
    assert first_row(browser).startswith(f"30.35|{HOSTILE}")
    type_into(browser, "below", "", 1)
    type_into(browser, "name", "00399", 1)
    assert first_row(browser).startswith("49.95|00399.png")
    browser.ask("document.getElementById('find-copy-table').click()")
    assert browser.ask("document.getElementById('find-text').value") == "399\t00399.png\t49.95\tcircle"
    type_into(browser, "name", "nothing of this name", 0)
    assert browser.ask("document.querySelectorAll('#find-rows tr').length") == 0


def test_panels_are_made_when_they_are_scrolled_to(browser: Browser) -> None:
    waiting = "[...document.querySelectorAll('.card.waiting')]"
    assert browser.ask(f"{waiting}.length") == 240
    before = browser.ask(f"{waiting}.filter((card) => card.querySelector('img')).length")
    assert before < 240
    browser.ask(f"{waiting}.at(-1).scrollIntoView()")
    browser.wait_for(f"{waiting}.at(-1).querySelector('img') !== null")
    words = browser.ask(f"{waiting}.at(-1).textContent")
    assert "splatspace render memory.zarr --image" in words


def test_the_viewer_draws_what_the_decoder_decodes(browser: Browser, store: MemoryStore) -> None:
    browser.ask("document.querySelector('.card[data-row=\"0\"]').click()")
    browser.wait_for("document.getElementById('viewer').open")
    height, width = browser.ask(
        "(() => { const it = document.getElementById('viewer-splats'); return [it.height, it.width]; })()"
    )
    drawn = browser.ask(
        "(() => { const it = document.getElementById('viewer-splats');"
        " return [...it.getContext('2d').getImageData(0, 0, it.width, it.height).data]; })()"
    )
    header = store.header
    splats = store.rows.splats[:1]
    wanted = to_uint8(decode(splats, layout=header.splat_layout, codec=header.codec, height=height, width=width))[0]
    seen = np.array(drawn, np.uint8).reshape(height, width, 4)[..., :3]
    # The last row may be cut in the middle of a pixel, where the shape is no whole multiple.
    assert np.abs(seen[:-1, :-1].astype(int) - wanted[:-1, :-1]).max() <= 4
    browser.ask("document.getElementById('viewer-ellipses').click(); document.getElementById('viewer-in').click()")
    assert browser.ask("document.getElementById('viewer-zoom').textContent") == "1.6\u00d7"
    browser.ask(
        "(() => { const it = document.getElementById('viewer-splats'), box = it.getBoundingClientRect();"
        " it.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + box.width / 2,"
        " clientY: box.top + box.height / 2 })); })()"
    )
    browser.wait_for("/^(splat \\d: sigma_x|no splat)/.test(document.getElementById('viewer-words').textContent)")
    assert browser.ask("document.getElementById('viewer-command').textContent").endswith(
        "--image 0 --size 512 --out row-0.png"
    )


def test_a_picture_of_the_page_can_be_taken(browser: Browser, tmp_path: Path) -> None:
    browser.picture(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as taken:
        assert taken.width == 400
