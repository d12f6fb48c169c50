"""Every generator in words: what it makes, looks at and needs. Light to import, apart from the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.names import DataKind, HeadName, RecipeName, model_name


@dataclass(frozen=True)
class ModelDescription:
    """A kind of generator.

    Attributes:
        kind: the data that it makes.
        summary: one line for people.
        needs_slots: whether index i must mean the same in every image (a store with anchors).
        takes_labels: whether it can be conditioned on classes.
        state: the data that it looks at and that noise is added to; "" for the data that it makes.
        clean_only: whether its prediction is a drawing, which can be a clean image in [-1, 1] and nothing else: no
            noise, no velocity, no numbers of another scale.
    """

    kind: DataKind
    summary: str
    needs_slots: bool = False
    takes_labels: bool = True
    state: DataKind | Literal[""] = ""
    clean_only: bool = False

    @property
    def sees(self) -> DataKind:
        """The data that it looks at."""
        return self.state or self.kind

    @property
    def draws(self) -> bool:
        """Whether it looks at pixels and answers with Gaussians, which a renderer draws."""
        return (self.kind, self.sees) == ("splats", "pixels")


_PATCH_MODELS: dict[tuple[HeadName, RecipeName], str] = {
    ("kpn", "published"): "kernels that filter the noisy image, as published",
    ("kpn", "modern"): "kernels that filter the noisy image, and colours where filters cannot help",
    ("lut", "published"): "patches as means of 512 learned patterns, as published",
    ("lut", "modern"): "patches as sums of learned patterns that differ from each other",
    ("outer", "published"): "patches as sums of 64 products drawn again for each image, as published",
    ("outer", "modern"): "patches as sums of 64 products drawn again for each image, which start as cosine waves",
    ("splats", "published"): "patches as 16 splats each, drawn at any size, as published",
    ("splats", "modern"): "patches as splats that neighbours share, drawn at any size without seams",
}

DESCRIPTIONS: dict[str, ModelDescription] = {
    "splatdit": ModelDescription(
        "splats", "diffusion transformer over packed neighbouring Gaussians with slot identity", needs_slots=True
    ),
    "set": ModelDescription("splats", "permutation-equivariant set transformer, cost quadratic in K"),
    "set-induced": ModelDescription(
        "splats", "permutation-equivariant set transformer through 32 inducing points, cost linear in K"
    ),
    "published": ModelDescription(
        "splats",
        "the published transformer with its defects; full is its size, the others match splatdit's",
        takes_labels=False,
    ),
    "pixel-unet": ModelDescription("pixels", "U-Net on pixels"),
    "pixel-dit": ModelDescription("pixels", "diffusion transformer on patches of pixels, at splatdit's cost"),
    "render-dit": ModelDescription(
        "splats",
        "looks at noisy pixels, answers with K Gaussians and a residual that fades with the noise",
        state="pixels",
        clean_only=True,
    ),
} | {
    model_name(head, recipe): ModelDescription(
        "pixels", summary, takes_labels=recipe == "modern", clean_only=head == "splats"
    )
    for (head, recipe), summary in _PATCH_MODELS.items()
}
"""Every generator by name; ``models.registry`` adds networks and sizes."""
