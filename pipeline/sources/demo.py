"""The built-in images: little pixel-art characters, drawn when they are read. No files, no network.

Each is a pure function of its number: six callings, three views, four poses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord
from pipeline.sources.base import SourceImage
from pipeline.sources.demo_shapes import CANVAS, Colour, dots, ellipse, limb, paint, trapezium

CALLINGS = ("knight", "mage", "ranger", "monk", "noble", "villager")
"""The classes of the built-in set."""

_VIEWS = ("front", "right", "left")
_POSES = ("stand", "step", "stride", "raise")

_SKINS: tuple[Colour, ...] = ((244, 202, 164), (222, 168, 122), (176, 118, 78), (122, 78, 54), (158, 186, 120),
                              (186, 190, 226))  # fmt: skip
_HAIRS: tuple[Colour, ...] = ((96, 58, 34), (36, 32, 40), (232, 178, 62), (196, 66, 44), (212, 212, 220),
                              (64, 150, 88), (92, 70, 190))  # fmt: skip
_CLOTHS: tuple[Colour, ...] = ((56, 142, 190), (160, 44, 52), (72, 130, 66), (206, 196, 170), (122, 84, 54),
                               (122, 62, 146), (220, 156, 52), (70, 78, 104))  # fmt: skip
_LEATHERS: tuple[Colour, ...] = ((110, 72, 44), (74, 54, 46), (168, 128, 78), (86, 88, 98))
_GLOWS: tuple[Colour, ...] = ((110, 220, 240), (250, 150, 70), (150, 240, 120), (236, 120, 220))
_STEEL, _GOLD, _WOOD = (168, 176, 192), (236, 190, 66), (134, 92, 54)
_WHITE, _DARK = (240, 240, 236), (26, 20, 30)

_Point = tuple[float, float]

IMAGES = 1000
SIZE = 32


@dataclass(frozen=True)
class Character:
    """What is drawn: everything that the number of an image decides."""

    calling: str
    view: str
    pose: str
    skin: Colour
    hair: Colour
    hair_style: int
    top: Colour
    trousers: Colour
    boots: Colour
    glow: Colour
    eyes: Colour
    cape: bool
    beard: bool
    slim: int

    @property
    def label(self) -> int:
        """Index into CALLINGS."""
        return CALLINGS.index(self.calling)


def character(number: int) -> Character:
    """The character of a number, by a hash: independent of every library's random numbers."""
    bits = hashlib.blake2b(b"character %d" % number, digest_size=32).digest()
    cloth = bits[6] % len(_CLOTHS)
    return Character(
        calling=CALLINGS[bits[0] % len(CALLINGS)],
        view=_VIEWS[bits[1] % len(_VIEWS)],
        pose=_POSES[bits[2] % len(_POSES)],
        skin=_SKINS[bits[3] % len(_SKINS)],
        hair=_HAIRS[bits[4] % len(_HAIRS)],
        hair_style=bits[5] % 4,
        top=_CLOTHS[cloth],
        trousers=_CLOTHS[(cloth + 1 + bits[7] % (len(_CLOTHS) - 1)) % len(_CLOTHS)],
        boots=_LEATHERS[bits[8] % len(_LEATHERS)],
        glow=_GLOWS[bits[9] % len(_GLOWS)],
        eyes=((60, 40, 30), (40, 90, 160), (40, 120, 70))[bits[10] % 3],
        cape=bits[11] % 3 == 0,
        beard=bits[12] % 5 == 0,
        slim=bits[13] % 3,
    )


def draw(number: int) -> NDArray[np.uint8]:
    """The image of a number.

    Returns:
        uint8 [32, 32, 3] on black.
    """
    who = character(number)
    canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
    _Drawing(canvas, who).draw()
    if who.view == "left":
        canvas = canvas[:, ::-1]
    boxes = canvas.reshape(CANVAS // 2, 2, CANVAS // 2, 2, 3).sum(axis=(1, 3), dtype=np.uint16)
    return ((boxes + 2) >> 2).astype(np.uint8)


def _darker(colour: Colour) -> Colour:
    return colour[0] // 2, colour[1] // 2, colour[2] // 2


class _Drawing:
    """One character on one canvas; a side view looks right and is mirrored afterwards."""

    def __init__(self, canvas: NDArray[np.uint8], who: Character) -> None:
        self.canvas, self.who = canvas, who
        self.front = who.view == "front"
        self.rise = 1 if who.pose == "step" else 0  # the body lifts a little while walking

    def draw(self) -> None:
        """Paints from back to front."""
        near, far = self._hands()
        shoulder = 7.0 - 0.5 * self.who.slim if self.front else 1.0
        robe = self.who.calling in ("mage", "monk")
        if self.who.cape or self.who.calling == "noble":
            x = 32 if self.front else 28
            paint(self.canvas, trapezium(x, 33, 57, 7, 10 if self.front else 7).streaked(7), self.who.trousers)
        self._arm((32 + shoulder, 36 - self.rise), far)
        if not self.front:
            self._tool(far)
        self._legs(robe)
        self._body(robe)
        self._head()
        self._arm((32 - shoulder, 36 - self.rise), near)
        if self.front:
            self._tool(near)
            if self.who.calling == "knight":
                x, y = far
                paint(self.canvas, ellipse(x, y - 2, 5.5, 7), self.who.top)
                paint(self.canvas, ellipse(x, y - 2, 2, 2.5), _GOLD, outline=False)

    def _hands(self) -> tuple[_Point, _Point]:
        lift = self.rise
        if self.front:
            far = {"stand": (43.0, 47.0), "step": (44.0, 45.0), "stride": (42.0, 48.0), "raise": (45.0, 45.0)}
            near = {"stand": (21.0, 47.0), "step": (21.0, 48.0), "stride": (20.0, 44.0), "raise": (15.0, 25.0)}
        else:
            far = {"stand": (37.0, 46.0), "step": (39.0, 45.0), "stride": (41.0, 43.0), "raise": (46.0, 31.0)}
            near = {"stand": (29.0, 47.0), "step": (27.0, 47.0), "stride": (24.0, 46.0), "raise": (27.0, 47.0)}
        (near_x, near_y), (far_x, far_y) = near[self.who.pose], far[self.who.pose]
        return (near_x, near_y - lift), (far_x, far_y - lift)

    def _arm(self, shoulder: _Point, hand: _Point) -> None:
        elbow = ((shoulder[0] + hand[0]) / 2, (shoulder[1] + hand[1]) / 2)
        sleeve = _STEEL if self.who.calling == "knight" else self.who.top
        paint(self.canvas, limb(elbow, hand, 2.6, 2.4), self.who.skin)
        paint(self.canvas, limb(shoulder, elbow, 3.4, 3.0), sleeve)
        paint(self.canvas, ellipse(hand[0], hand[1], 2.6, 2.6), self.who.skin)

    def _legs(self, robe: bool) -> None:
        swing = {"stand": 0.0, "step": 2.5, "stride": 6.0, "raise": 1.0}[self.who.pose]
        if self.front:
            lift = swing * 0.5
            feet = ((27.5, 58.0 - lift), (36.5, 58.0))
            hips = ((28.5, 47.0), (35.5, 47.0))
        else:
            feet = ((32.0 - swing, 57.5 - (swing > 2)), (32.0 + swing, 58.0))
            hips = ((31.5, 47.0), (32.5, 47.0))
        for hip, foot in zip(hips, feet, strict=True):
            if not robe:
                paint(self.canvas, limb(hip, foot, 4.2, 3.0), self.who.trousers)
            shin = ((hip[0] + 2 * foot[0]) / 3, (hip[1] + 2 * foot[1]) / 3)
            paint(self.canvas, limb(shin, foot, 3.2, 3.0), self.who.boots)
            toe = 0.0 if self.front else 1.8
            paint(self.canvas, ellipse(foot[0] + toe, foot[1] + 1.2, 4.2, 2.6), self.who.boots)

    def _body(self, robe: bool) -> None:
        who, top = self.who, 32 - self.rise
        half = 8.0 - 0.7 * who.slim if self.front else 5.5
        cloth = _STEEL if who.calling == "knight" else who.top
        if robe:
            paint(self.canvas, trapezium(32, top + 10, 57, half - 0.5, half + 2.5).streaked(8), who.top)
        paint(self.canvas, trapezium(32, top, 49, half, half - 1.5), cloth)
        if who.calling == "knight":
            paint(self.canvas, trapezium(32, top + 5, 52, half * 0.55, half * 0.6), who.top)
        elif who.calling == "noble":
            dots(self.canvas, [(31, top + 3, 2, 13)], _GOLD)
        elif who.calling == "ranger":
            paint(self.canvas, limb((32 - half + 2, top + 2), (32 + half - 2, 46), 1.4, 1.4), who.boots, outline=False)
        paint(self.canvas, trapezium(32, 45.5, 48.5, half - 1, half - 1), who.boots, outline=False)
        dots(self.canvas, [(31, 46, 2, 2)], _GOLD)

    def _head(self) -> None:
        who, y = self.who, 22 - self.rise
        if who.hair_style == 3 and who.calling in ("noble", "villager", "mage"):  # long hair behind the shoulders
            paint(self.canvas, ellipse(32 if self.front else 28, y + 6, 10 if self.front else 7, 12).streaked(6),
                  who.hair)  # fmt: skip
        paint(self.canvas, ellipse(32, y, 9.5, 10), who.skin)
        if self.front:
            dots(self.canvas, [(26, y, 4, 4), (34, y, 4, 4)], _WHITE)
            dots(self.canvas, [(27, y, 2, 4), (35, y, 2, 4)], who.eyes)
            dots(self.canvas, [(26, y - 1, 4, 1), (34, y - 1, 4, 1)], _DARK)
            mouth = [(30, y + 6, 4, 1)]
        else:
            dots(self.canvas, [(35, y, 4, 4)], _WHITE)
            dots(self.canvas, [(37, y, 2, 4)], who.eyes)
            dots(self.canvas, [(35, y - 1, 4, 1)], _DARK)
            mouth = [(36, y + 6, 3, 1)]
        dots(self.canvas, mouth, _darker(who.skin))
        if who.beard:
            jaw = ellipse(32 if self.front else 34, y + 6, 8, 6).below(y + 4)
            paint(self.canvas, jaw.without(ellipse(mouth[0][0] + 2, y + 6.5, 2.5, 1)).streaked(5), who.hair)
        self._headgear(y)

    def _headgear(self, y: int) -> None:
        who, canvas = self.who, self.canvas
        scalp = ellipse(32 if self.front else 30.5, y - 3, 10.8, 10)
        face = ellipse(32 if self.front else 37, y + 3.5, 7.5 if self.front else 7.8, 7)
        hair = scalp.without(face).above(y + 4 if self.front else y + 6)
        if who.calling == "knight":
            # A closed helmet: the face behind a slit, breathing holes below, a plume above.
            paint(canvas, ellipse(31 if self.front else 27, y - 12, 4.5, 5).streaked(5), who.hair)
            paint(canvas, ellipse(32, y - 0.5, 10.8, 11), _STEEL)
            dots(canvas, [(25, y, 14, 3)] if self.front else [(32, y, 10, 3)], _DARK)
            dots(canvas, [(27, y + 1, 2, 1), (35, y + 1, 2, 1)] if self.front else [(37, y + 1, 2, 1)], who.glow)
            dots(canvas, [(31 if self.front else 37, y + 4, 2, 5)], _darker(_STEEL))
            return
        if who.calling == "ranger":
            hood = ellipse(32 if self.front else 30.5, y - 1, 12, 12).joined(trapezium(31, y - 15, y - 6, 1, 8, -3))
            paint(canvas, hood.without(face).above(y + 10), who.top)
            return
        if who.calling == "monk":
            paint(canvas, hair.below(y - 4).streaked(4), who.hair)
            paint(canvas, ellipse(32, y - 8, 5, 2.5), who.skin, outline=False)
            return
        paint(canvas, hair.streaked(6), who.hair)
        if who.hair_style == 1:  # spikes
            for x in (24, 29, 34, 39):
                paint(canvas, trapezium(x, y - 16, y - 6, 0.5, 3.5, (x - 32) * 0.3), who.hair)
        elif who.hair_style == 2 and who.calling == "villager":  # a knot
            paint(canvas, ellipse(32 if self.front else 25, y - 14, 4, 4).streaked(5), who.hair)
        if who.calling == "mage":
            paint(canvas, trapezium(32, y - 19, y - 5, 0.5, 9, -4).streaked(9), who.top)
            paint(canvas, ellipse(32, y - 5, 14, 3.2), who.top)
            paint(canvas, trapezium(32, y - 9, y - 6, 7.5, 8.5), who.glow, outline=False)
        elif who.calling == "noble":
            paint(canvas, trapezium(32, y - 12, y - 6, 8.5, 8), _GOLD)
            for x in (24, 32, 40):
                paint(canvas, trapezium(x, y - 16, y - 9, 0.5, 3), _GOLD)
            dots(canvas, [(31, y - 10, 3, 3)], who.glow)

    def _tool(self, hand: _Point) -> None:
        who, canvas = self.who, self.canvas
        x, y = hand
        if who.calling == "knight":
            tip = (x - 5.0, y - 19.0) if self.front else (x + 9.0, y - 16.0)
            paint(canvas, limb(hand, tip, 2.2, 1.4), (206, 214, 228))
            paint(canvas, limb((x - 4, y - 3), (x + 4, y - 2), 1.5, 1.5), _GOLD)
        elif who.calling == "mage":
            paint(canvas, limb((x, y + 11), (x, y - 14), 1.6, 1.6), _WOOD)
            paint(canvas, ellipse(x, y - 15, 4.2, 4.2), who.glow)
        elif who.calling == "ranger":
            bow = ellipse(x, y - 2, 7, 14).without(ellipse(x + 3.5, y - 2, 7, 13)).left_of(x + 2)
            paint(canvas, bow, _WOOD, outline=False)
            dots(canvas, [(int(x) + 1, int(y) - 13, 1, 23)], (200, 200, 190))
        elif who.calling == "monk":
            paint(canvas, ellipse(x, y, 3.4, 3.4), who.glow)
        elif who.calling == "noble":
            paint(canvas, limb((x, y + 4), (x, y - 8), 1.5, 1.5), _GOLD)
            paint(canvas, ellipse(x, y - 10, 3, 3), who.glow)
        else:
            paint(canvas, limb((x - 1, y + 7), (x + 2, y - 13), 1.5, 1.5), _WOOD)
            paint(canvas, limb((x - 3, y - 13), (x + 8, y - 10), 2.2, 1.2), _STEEL)


class DemoSource:
    """An ``ImageSource`` of characters; image i depends on i alone.

    Args:
        images: how many.
        split: recorded.
    """

    def __init__(self, images: int = IMAGES, split: str = "all") -> None:
        self._images = images
        # A change of the art changes the first images, and with them the digest.
        digest = hashlib.sha256(b"".join(draw(number).tobytes() for number in range(min(8, images))))
        self._record = SourceRecord(
            name="demo",
            split=split,
            digest="sha256:" + digest.hexdigest(),
            licence="Apache-2.0",
            attribution="The SplatSpace authors",
            label_names=CALLINGS,
        )

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        return self._record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(32, 32, 3)."""
        return SIZE, SIZE, 3

    def __len__(self) -> int:
        return self._images

    def identifiers(self) -> Sequence[str]:
        """``demo/0000`` and on."""
        return tuple(f"demo/{number:04}" for number in range(self._images))

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Draws images."""
        for index in indices:
            if not 0 <= index < self._images:
                raise IndexError(f"image {index} of {self._images}")
        return [SourceImage(f"demo/{index:04}", draw(index), character(index).label) for index in indices]


def open_demo(*, split: str = "all") -> DemoSource:
    """The 1,000 built-in characters, 32x32 RGB on black."""
    return DemoSource(split=split)
