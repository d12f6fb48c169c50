"""Composes the frames of Sprites from the layer sheets of the Liberated Pixel Cup.

A sheet is a PNG of 13 x 21 cells of 64x64 pixels. A frame lays one cell of five sheets over black: body,
bottomwear, topwear, hair, shoes. Character c wears ``((body*6 + bottomwear)*6 + topwear)*6 + hair``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import ImageError, SourceError
from pipeline.sources.archives import SafeZip
from pipeline.sources.decoding.decode_image import decode_layer

logger = logging.getLogger("splatspace.sources")

CELL = 64
CELLS_A_ROW, ROWS = 13, 21
LAYERS = ("body", "bottomwear", "topwear", "hair")
CHOICES = 6
CHARACTERS = CHOICES ** len(LAYERS)
SHOES = "shoes/1.png"

# (action, row of its first direction, (column, frame number) in time order). The last frame of spellcard and
# of walk carries the number that the published frames have, not the one that follows.
_ACTIONS = (
    ("spellcard", 1, (*((column, column) for column in range(6)), (6, 7))),
    ("walk", 9, (*((column, column) for column in range(1, 8)), (8, 0))),
    ("slash", 13, tuple((column, column) for column in range(6))),
)

DIRECTIONS = ("left", "front", "right")

SHEET_SHA256: dict[str, str] = {
    "body/0.png": "27d1ac78db37c42f35a20d15c42705efc5e58d47c236cc01423879d4f797f151",
    "body/1.png": "1535e9228357b884df80f777a0d1dac10ac35e550e4d8d077105ccad014a1460",
    "body/2.png": "7c241033b4897501cb3721b6c3a9ebfa94b13db10a539edbd9bcc3e0c2a4bcb9",
    "body/3.png": "055f5aa33fc112d8444b42fce2cf50608a9fbbf2466c54ceaa46c777589a717a",
    "body/4.png": "57f3b9c510482379aba9a32fc0de7d48e9cbe3dc40f2447283547f773b77ca72",
    "body/5.png": "91e49453aeab5ebbb4fd2b48253812895dcfb4cb1829b84e24425c66de8f04ff",
    "bottomwear/0.png": "4ec356c488e272fde2d2d0d722b12a80217871e41161d43ba784caf243969ec2",
    "bottomwear/1.png": "0674312eaa4ab548f8bb31ef95d7dbd46b41555758cec51bd6c3e9fac9a0f936",
    "bottomwear/2.png": "3b464feb0d20ff34b0ca2a6d1fd00766ad86e2229c3d56ff91379fe27588a893",
    "bottomwear/3.png": "b366e84ea0519d06cf693f51e0ee2f9ac32b3132d27c75dfdc4b6f52fca072de",
    "bottomwear/4.png": "4ed7e7702e4f50b9692c0043be04b7296a108d85ea97230fb50d13c150d98771",
    "bottomwear/5.png": "a5c5e7e33f13fe5ad37b5836a5a74fb0d2094a0877c2146961b88688ff85840d",
    "topwear/0.png": "b917edcf2b3c35d51ef57a6fad67557c5edf048785bea29db09a640d09ac9a90",
    "topwear/1.png": "e33c6cb31ed1268a2c0dc73b665b1c9b9420e22baf3321880222bdb22682368b",
    "topwear/2.png": "2b9b8fefa08894b7ea536cd62b86d494aefe6e54495c5c1d83460827b13b6448",
    "topwear/3.png": "807f5b628592f6747e2814be9435963069dba6c360577168c02f57bbe903433d",
    "topwear/4.png": "b51b17878503877e179ce4f9231713bf2b2d2d666c3ec9ee29f4e784469867a2",
    "topwear/5.png": "1b6049d43f83ebfda857cc405d1936ac9fd80be480fa6ad239024a6a75ad0372",
    "hair/0.png": "e4007b0635a239ad16cdebfe90759349ccc73dfc6836c9d19625714be185f43d",
    "hair/1.png": "fa6369f84d3310705df6d8ca8c9d515a7d211e73d2826c50a9cb5bb285652c66",
    "hair/2.png": "1b8046752be7233e829ebe9b11048e171d8d181ee6f68e07042b34f57bb8af0d",
    "hair/3.png": "333783285c5fd94ff434ae5000d2da39aac7940269f173119eaa70d34c8acfa1",
    "hair/4.png": "24df8e9b291cbd444f6c4d12d35b3d43d909cd13f04e6401e0fd8ab10216d5a2",
    "hair/5.png": "4dd471cc20e0b1cf71adcaab01c88598767e5cfe680adacdf560ca91574f17ae",
    SHOES: "d56a561616a20a12030d2d40a52eeec63e6d048871bf3b6994221869362151f1",
}
"""The 25 sheets by path, in no folder, and the SHA-256 of each official file."""

ReadSheet = Callable[[str], bytes]


@dataclass(frozen=True)
class Pose:
    """One of the 63 poses: which cell of every sheet it is.

    Attributes:
        action: ``spellcard``, ``walk`` or ``slash``.
        direction: ``left``, ``front`` or ``right``.
        frame: the number that the published file names carry.
        row: of the cell, from the top.
        column: of the cell.
    """

    action: str
    direction: str
    frame: int
    row: int
    column: int

    @property
    def name(self) -> str:
        """``action/direction/frame``."""
        return f"{self.action}/{self.direction}/{self.frame}"


POSES: tuple[Pose, ...] = tuple(
    Pose(action, direction, frame, row + turn, column)
    for action, row, cells in _ACTIONS
    for turn, direction in enumerate(DIRECTIONS)
    for column, frame in cells
)

ACTION_NAMES: tuple[str, ...] = tuple(dict.fromkeys(f"{pose.action} {pose.direction}" for pose in POSES))
"""The nine classes: what the character does, and where it looks."""


@dataclass(frozen=True)
class _Cell:
    """One cell of a sheet, as the few pixels that cover anything.

    Attributes:
        opaque: int [pixel], flat positions.
        colours: uint32 [pixel], packed RGBA of the opaque ones.
        translucent: int [pixel], flat positions.
        rgba: uint8 [pixel, 4] of the translucent ones.
    """

    opaque: NDArray[np.int64]
    colours: NDArray[np.uint32]
    translucent: NDArray[np.int64]
    rgba: NDArray[np.uint8]

    @classmethod
    def of(cls, rgba: NDArray[np.uint8]) -> _Cell:
        """From uint8 [64, 64, RGBA]."""
        flat = np.ascontiguousarray(rgba).reshape(-1, 4)
        opaque = np.flatnonzero(flat[:, 3] == 255)
        translucent = np.flatnonzero((flat[:, 3] > 0) & (flat[:, 3] < 255))
        return cls(opaque, flat[opaque].view(np.uint32)[:, 0], translucent, flat[translucent])

    def lay_over(self, canvas: NDArray[np.uint32], rows: NDArray[np.int64]) -> None:
        """Alpha-composites over rows of an opaque canvas, in place, rounded as Pillow rounds.

        Args:
            canvas: uint32 [frame, 4096], packed RGBA.
            rows: int [any], which frames.
        """
        canvas[rows[:, None], self.opaque] = self.colours
        if len(rows) and len(self.translucent):
            at = (rows[:, None], self.translucent)
            below = canvas[at].view(np.uint8).reshape(len(rows), -1, 4)
            weight = self.rgba[:, 3:].astype(np.int64)
            scaled = (self.rgba * weight + below * (255 - weight) + 128) << 7
            mixed = ((((scaled >> 8) + scaled) >> 8) >> 7).astype(np.uint8)
            mixed[..., 3] = 255
            canvas[at] = mixed.view(np.uint32)[..., 0]


class SpriteSheets:
    """The sheets, decoded, and the frames that they make. Immutable, so any thread may compose.

    Args:
        sheets: bytes of the 25 PNG files by their names in SHEET_SHA256.

    Raises:
        SourceError: a sheet that is no image of 832x1344.
    """

    def __init__(self, sheets: Mapping[str, bytes]) -> None:
        self._layers = [[_cells(f"{layer}/{choice}.png", sheets) for choice in range(CHOICES)] for layer in LAYERS]
        self._shoes = _cells(SHOES, sheets)

    def compose(self, pose: int, characters: NDArray[np.integer], *, half: bool = False) -> NDArray[np.uint8]:
        """Frames of one pose.

        Characters that share a body, or a body and bottomwear, ... are composed together up to there, which
        makes a run of neighbouring characters cheap.

        Args:
            pose: index into POSES.
            characters: int [frame], each 0 to 1295.
            half: reduced as by ``halve``.

        Returns:
            uint8 [frame, 64, 64, 3], or [frame, 32, 32, 3] with ``half``.
        """
        black = np.array([[0, 0, 0, 255]], np.uint8).view(np.uint32)
        canvas = np.broadcast_to(black, (1, CELL * CELL))
        outfits, positions = np.unique(np.asarray(characters, np.int64), return_inverse=True)
        worn = np.zeros(1, np.int64)
        for number, layer in enumerate(self._layers):
            wanted = np.unique(outfits // CHOICES ** (len(LAYERS) - 1 - number))
            canvas = canvas[np.searchsorted(worn, wanted // CHOICES)]
            choices = wanted % CHOICES
            for choice in range(CHOICES):
                layer[choice][pose].lay_over(canvas, np.flatnonzero(choices == choice))
            worn = wanted
        self._shoes[pose].lay_over(canvas, np.arange(len(canvas)))
        side = CELL // 2 if half else CELL
        packed = _halve_packed(canvas) if half else canvas
        frames = packed.view(np.uint8).reshape(-1, side, side, 4)[..., :3]
        return frames[positions]


def _halve_packed(canvas: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """As ``halve``, for packed frames uint32 [frame, 4096]: two channels in one number, so four times as fast."""
    rows = canvas.view(np.uint64).reshape(-1, CELL // 2, 2, CELL // 2)  # a number holds two neighbouring pixels
    half = np.zeros((len(canvas), CELL // 2, CELL // 2), np.uint32)
    for shift in (0, 8):
        channels = (rows >> np.uint64(shift)) & np.uint64(0x00FF00FF00FF00FF)
        pairs = channels[:, :, 0] + channels[:, :, 1]
        boxes = (pairs + (pairs >> np.uint64(32))).astype(np.uint32)
        half |= (((boxes + np.uint32(0x00020002)) >> np.uint32(2)) & np.uint32(0x00FF00FF)) << np.uint32(shift)
    return half


def halve(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of every 2x2 box, rounded half up.

    Args:
        frames: uint8 [frame, height, width, channel], both sides even.

    Returns:
        uint8 [frame, height/2, width/2, channel].
    """
    total = frames[:, ::2, ::2].astype(np.uint16)
    for down, right in ((0, 1), (1, 0), (1, 1)):
        total += frames[:, down::2, right::2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def read_sheet_zip(path: Path) -> dict[str, bytes] | None:
    """The sheets inside a zip, in whatever folder; None where any is missing."""
    archive = SafeZip(path)
    by_name = {"/".join(member.name.split("/")[-2:]): member for member in archive.members}
    if any(name not in by_name for name in SHEET_SHA256):
        return None
    return {name: archive.read(by_name[name]) for name in SHEET_SHA256}


def read_sheet_folder(path: Path) -> dict[str, bytes] | None:
    """The sheets in a folder (``body/0.png`` ...); None where any is missing."""
    if any(not (path / name).is_file() for name in SHEET_SHA256):
        return None
    return {name: (path / name).read_bytes() for name in SHEET_SHA256}


def find_changed_sheets(sheets: Mapping[str, bytes]) -> list[str]:
    """Names of the sheets whose bytes are not the official ones."""
    return [name for name, digest in SHEET_SHA256.items() if hashlib.sha256(sheets[name]).hexdigest() != digest]


def _cells(name: str, sheets: Mapping[str, bytes]) -> list[_Cell]:
    width, height = CELLS_A_ROW * CELL, ROWS * CELL
    try:
        rgba = decode_layer(sheets[name])
    except ImageError as error:
        raise SourceError(
            f"The sheet {name} cannot be read ({error})", next_step="copy or download it again"
        ) from error
    if rgba.shape[:2] != (height, width):
        raise SourceError(
            f"The sheet {name} has {rgba.shape[1]} x {rgba.shape[0]} pixels", allowed=f"{width} x {height}"
        )
    cells = rgba.reshape(ROWS, CELL, CELLS_A_ROW, CELL, 4)
    return [_Cell.of(cells[pose.row, :, pose.column]) for pose in POSES]
