"""What transparent images are laid over: one spelling of a colour for jobs, stores and readers."""

from __future__ import annotations

from data_schemas.errors import JobError


def background_name(text: str) -> str:
    """The one spelling of a colour, ``#rrggbb`` in lower case: what stores and jobs hold.

    Args:
        text: a name of CSS (``white``), ``#rgb``, ``#rrggbb`` or ``rgb(255, 255, 255)``.

    Raises:
        JobError: no such colour, or one that is itself transparent.
    """
    from PIL import ImageColor  # here: whoever only asks for help or a plan need not wait for it

    try:
        colour: tuple[int, ...] = ImageColor.getrgb(text.strip())
    except ValueError:
        colour = ()
    if len(colour) != 3:
        raise JobError(
            f"--background {text!r}",
            allowed="black, white, another name of a colour in CSS, or #rrggbb",
            next_step="type --background white, or leave it out for black",
        )
    return "#" + bytes(colour).hex()


def colour_of(name: str) -> tuple[int, int, int]:
    """Red, green and blue, each 0 to 255, of a colour spelled ``#rrggbb``."""
    red, green, blue = bytes.fromhex(name.removeprefix("#"))
    return red, green, blue


def is_grey(name: str) -> bool:
    """Whether a colour spelled ``#rrggbb`` can be shown in one channel."""
    return len(set(colour_of(name))) == 1
