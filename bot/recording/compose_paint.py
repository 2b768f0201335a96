"""Pictures of a composite: a canvas of three planes (4:2:0), names, and avatars of those without a camera."""

from __future__ import annotations

import colorsys
import unicodedata
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av import VideoFrame
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bot.errors import ConfigurationError
from bot.recording.compose_layout import Rect, even

Plane = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_BACKGROUND = (20, 22, 26)
_TILE = (40, 44, 52)
_BORDER = (76, 154, 255)
_WHITE = (255, 255, 255)
#: Fonts by how many scripts they have. Pillow's own, which comes last, has Latin letters alone.
_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "FreeSans.ttf", "Arial Unicode.ttf")
_MISSING = "\U0010fffe"
MAX_NAME = 64


class Picture(NamedTuple):
    """Planes Y, U and V; ``alpha`` says how much of each pixel is seen, None for all."""

    y: Plane
    u: Plane
    v: Plane
    alpha: Plane | None = None


def planes_of(frame: VideoFrame) -> Picture:
    """The planes of a frame in yuv420p, of even size."""
    found = []
    for plane, (width, height) in zip(
        frame.planes, ((frame.width, frame.height), *[(frame.width // 2, frame.height // 2)] * 2), strict=True
    ):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        found.append(rows[:height, :width])
    return Picture(*found)


def picture_of(image: Image.Image) -> Picture:
    """A picture of Pillow's, of even size; with its alpha where it has one."""
    frame = VideoFrame.from_ndarray(np.asarray(image.convert("RGB")), format="rgb24")
    planes = planes_of(frame.reformat(format="yuv420p"))
    alpha = np.asarray(image.getchannel("A")).copy() if image.mode == "RGBA" else None
    return Picture(planes.y.copy(), planes.u.copy(), planes.v.copy(), alpha)


class Canvas:
    """The picture that is painted on; what is not painted over stays."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        plain = picture_of(Image.new("RGB", (2, 2), _BACKGROUND))
        self._background = [int(plane[0, 0]) for plane in (plain.y, plain.u, plain.v)]
        sizes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
        self.planes = tuple(np.empty(size, np.uint8) for size in sizes)
        self.clear()

    def __repr__(self) -> str:
        return f"<Canvas {self.width}x{self.height}>"

    def clear(self, place: Rect | None = None) -> None:
        """Paint the background."""
        x, y, width, height = place or Rect(0, 0, self.width, self.height)
        for plane, value, part in zip(self.planes, self._background, (1, 2, 2), strict=True):
            plane[y // part : (y + height) // part, x // part : (x + width) // part] = value

    def put(self, picture: Picture, place: Rect) -> None:
        """Paint ``picture`` in the middle of ``place``; what is larger is cut."""
        high, wide = picture.y.shape
        left, top = (place.width - wide) // 4 * 2, (place.height - high) // 4 * 2
        at = Rect(place.x + max(0, left), place.y + max(0, top), min(wide, place.width), min(high, place.height))
        for plane, data, part in zip(self.planes, picture[:3], (1, 2, 2), strict=True):
            from_y, from_x = max(0, -top) // part, max(0, -left) // part
            rows, columns = at.height // part, at.width // part
            cut = data[from_y : from_y + rows, from_x : from_x + columns]
            y, x = at.y // part, at.x // part
            target = plane[y : y + rows, x : x + columns]
            if picture.alpha is None:
                target[:] = cut
            else:
                alpha = picture.alpha[::part, ::part][from_y : from_y + rows, from_x : from_x + columns]
                weight = alpha.astype(np.uint16)
                target[:] = (target * (255 - weight) + cut * weight + 127) // 255

    def border(self, place: Rect) -> None:
        """A frame around ``place``, inside of it."""
        thick = even(self.height / 180)
        x, y, width, height = place
        color = _plain(_BORDER)
        for part in (
            Rect(x, y, width, thick),
            Rect(x, y + height - thick, width, thick),
            Rect(x, y, thick, height),
            Rect(x + width - thick, y, thick, height),
        ):
            for plane, value, share in zip(self.planes, color, (1, 2, 2), strict=True):
                rows = slice(part.y // share, (part.y + part.height) // share)
                plane[rows, part.x // share : (part.x + part.width) // share] = value

    def frame(self) -> VideoFrame:
        """A copy of what is painted."""
        frame = VideoFrame(self.width, self.height, "yuv420p")
        for plane, data in zip(frame.planes, self.planes, strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            rows[:, : data.shape[1]] = data
        return frame

    def image(self) -> Image.Image:
        """The same for Pillow."""
        return Image.fromarray(self.frame().to_ndarray(format="rgb24"))


@lru_cache(maxsize=8)
def _plain(color: tuple[int, int, int]) -> tuple[int, int, int]:
    one = picture_of(Image.new("RGB", (2, 2), color))
    return int(one.y[0, 0]), int(one.u[0, 0]), int(one.v[0, 0])


class Letters:
    """Writes names and draws avatars. ``font`` is a file; without one, a font that has the name's letters."""

    def __init__(self, font: Path | None = None) -> None:
        self._font = font
        if font is not None:
            self._of(str(font), 12)
        self.label = lru_cache(maxsize=256)(self._label)
        self.avatar = lru_cache(maxsize=64)(self._avatar)

    def __repr__(self) -> str:
        return f"<Letters {self._font or 'of the system'}>"

    def _label(self, name: str, width: int, height: int) -> Picture:
        """A name on a dark ground for the lower left of a tile of that size."""
        size = max(10, min(height // 10, 28))
        text = shown_name(name)
        font = self._font_for(text, size)
        room = width - 2 * size
        if font.getlength(text) > room:
            while len(text) > 1 and font.getlength(text + "…") > room:
                text = text[:-1]
            text += "…"
        image = Image.new(
            "RGBA", (even(min(width, font.getlength(text) + size) + 1), even(size * 1.7)), (0, 0, 0, 0)
        )
        draw = ImageDraw.Draw(image)
        draw.rounded_rectangle((0, 0, image.width - 1, image.height - 1), size // 3, (0, 0, 0, 170))
        draw.text((size // 2, image.height / 2), text, (*_WHITE, 255), font, anchor="lm")
        return picture_of(image)

    def _avatar(self, name: str, key: str, width: int, height: int) -> Picture:
        """A circle with initials in a color of its own for ``key``."""
        image = Image.new("RGB", (width, height), _TILE)
        # Drawn larger and scaled: Pillow's circles have steps.
        size, many = min(width, height) // 2, 4
        circle = Image.new("L", (size * many, size * many), 0)
        ImageDraw.Draw(circle).ellipse((0, 0, size * many - 1, size * many - 1), 255)
        place = ((width - size) // 2, (height - size) // 2)
        image.paste(color_of(key), (*place, place[0] + size, place[1] + size), circle.resize((size, size)))
        letters = initials(name)
        font = self._font_for(letters, max(8, size * 2 // 5))
        ImageDraw.Draw(image).text((width / 2, height / 2), letters, _WHITE, font, anchor="mm")
        return picture_of(image)

    def _font_for(self, text: str, size: int) -> Font:
        names = (str(self._font),) if self._font is not None else _FONTS
        found = [font for name in names if (font := self._try(name, size)) is not None]
        found = found or [ImageFont.load_default(size)]
        return next((font for font in found if _has(font, text)), found[0])

    def _try(self, name: str, size: int) -> Font | None:
        try:
            return self._of(name, size)
        except ConfigurationError:
            return None

    @staticmethod
    @lru_cache(maxsize=64)
    def _of(name: str, size: int) -> Font:
        try:
            return ImageFont.truetype(name, size)
        except OSError as error:
            raise ConfigurationError(f"compose font: {name} can't be read: {error}") from error


def _has(font: Font, text: str) -> bool:
    missing = bytes(font.getmask(_MISSING))
    return all(bytes(font.getmask(item)) != missing for item in set(text) if not item.isspace())


def shown_name(name: str) -> str:
    """``name`` on one line, without characters that control or turn what stands beside them."""
    kept = (item if not unicodedata.category(item).startswith("C") else " " for item in name[: 4 * MAX_NAME])
    return " ".join("".join(kept).split())[:MAX_NAME] or "?"


def initials(name: str) -> str:
    """The first letters of the first word and of the last."""
    words = [word for word in _words(shown_name(name)) if word]
    return "".join(word[0] for word in (words if len(words) < 2 else (words[0], words[-1]))).upper() or "?"


def _words(name: str) -> Iterable[str]:
    return "".join(item if item.isalnum() else " " for item in name).split()


def color_of(key: str) -> tuple[int, int, int]:
    """A color that white letters can be read on, the same for the same key."""
    hue = zlib.crc32(key.encode("utf-8", "replace")) % 360 / 360
    red, green, blue = colorsys.hls_to_rgb(hue, 0.38, 0.5)
    return round(red * 255), round(green * 255), round(blue * 255)


def scaled(frame: VideoFrame, width: int, height: int, by: av.video.reformatter.VideoReformatter) -> Picture:
    """A decoded frame in another size."""
    return planes_of(by.reformat(frame, width, height, format="yuv420p", interpolation="BILINEAR"))
