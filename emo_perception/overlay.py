"""The picture for people: boxes, expression bars, action units and the last caption, on the frame they belong to.

One face gets everything, a few get the strongest, many get one line each; a panel that would hide another face is
made smaller instead. Drawing is on a copy; the fonts are OpenCV's own, so that no font file is needed.
"""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from emo_models.labels import AU_NAMES
from emo_perception.config import CaptionConfig
from emo_perception.types import NS_PER_S, Caption, EmotionFeatures, FaceActionUnits, FaceFeatures, Frame, Side

RGB = NDArray[np.uint8]
Colour = tuple[int, int, int]

#: Track colours, light enough for dark text and for a dark panel (Okabe & Ito 2008, safe for colour-blind people).
PALETTE: Final[tuple[Colour, ...]] = (
    (86, 180, 233), (240, 228, 66), (90, 200, 150), (230, 159, 0), (204, 121, 167), (213, 130, 80),
)  # fmt: skip
WHITE: Final[Colour] = (242, 242, 242)
GREY: Final[Colour] = (185, 185, 185)
DARK: Final[Colour] = (24, 24, 24)
DIM: Final[Colour] = (112, 112, 112)
ROW: Final = 24
"""Height of a line of a panel, design pixels."""
ACTIVE: Final = CaptionConfig().min_intensity
"""Weaker action units are not shown: the same as those not worth a phrase."""
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
SHADE: Final = 0.28
"""What is left of the picture's brightness under a panel."""


def track_colour(track_id: int) -> Colour:
    """The colour of a track's box and bars, RGB."""
    return PALETTE[track_id % len(PALETTE)]


def beside(shown: Caption | None, new: Caption) -> Caption:
    """What to show after ``new``: a network captions each person of one moment apart, and none hides the other."""
    if shown is None or shown.stamp_ns != new.stamp_ns or shown.abstained:
        return new
    if new.abstained:
        return shown
    both = (*shown.track_ids, *new.track_ids)
    first = shown.text if len(shown.track_ids) > 1 else _named(shown)
    return replace(shown, text=f"{first} / {_named(new)}", track_ids=both)


def _named(caption: Caption) -> str:
    return f"#{', #'.join(map(str, caption.track_ids))}: {caption.text}"


def draw(frame: Frame, features: EmotionFeatures, caption: Caption | None, *, min_width: int = 0) -> RGB:
    """The frame with everything known of it: uint8 [H, W, 3] RGB, a new array, scaled up to ``min_width`` pixels.

    ``features`` must be those of this very frame: raises ``ValueError`` when the stamps differ.
    """
    if frame.stamp_ns != features.stamp_ns:
        raise ValueError(f"overlay: features of stamp {features.stamp_ns} do not belong to frame {frame.stamp_ns}")
    canvas = _Canvas(_scaled_copy(frame.image, min_width))
    scale = canvas.width / max(features.size_wh[0], 1)
    faces = sorted(features.faces, key=lambda face: -face.track.box_xywh[2])
    boxes = [_Rect.of(face.track.box_xywh * scale) for face in faces]
    taken = [canvas.clock(frame.stamp_ns)]
    if caption is not None:
        taken.append(canvas.caption(caption))
    for face, box in zip(faces, boxes, strict=True):
        taken.append(canvas.face(face, box))
    for i, (face, box) in enumerate(zip(faces, boxes, strict=True)):
        others = [*boxes[:i], *boxes[i + 1 :]]
        panel = canvas.panel(face, box, [*taken, *others], crowd=len(faces))
        if panel is not None:
            taken.append(panel)
    return canvas.image


@dataclass(frozen=True)
class _Rect:
    x: int
    y: int
    w: int
    h: int

    @classmethod
    def of(cls, xywh: NDArray[np.float32]) -> _Rect:
        x, y, w, h = np.rint(xywh).astype(int).tolist()
        return cls(x, y, w, h)

    def overlap(self, other: _Rect) -> int:
        """Common area, pixels."""
        across = min(self.x + self.w, other.x + other.w) - max(self.x, other.x)
        down = min(self.y + self.h, other.y + other.h) - max(self.y, other.y)
        return max(across, 0) * max(down, 0)


@dataclass(frozen=True)
class _Row:
    """A line of a panel: text, a value in [0, 1] shown as a bar of that colour, and in figures."""

    text: str
    value: float
    colour: Colour


class _Canvas:
    """An image and the size of things on it. ``unit``: pixels per design pixel of a 720-line picture."""

    def __init__(self, image: RGB) -> None:
        self.image = image
        self.height: int = image.shape[0]
        self.width: int = image.shape[1]
        self.unit: float = min(max(self.height / 720, 0.7), 2.5)

    def px(self, design: float) -> int:
        return max(round(design * self.unit), 1)

    def text(self, place: tuple[int, int], text: str, size: float, colour: Colour = WHITE) -> None:
        """Text with its left baseline at ``place``; ``size``: height of a line in design pixels."""
        cv2.putText(self.image, text, place, FONT, self.font(size), colour, self.stroke(size), cv2.LINE_AA)

    def font(self, size: float) -> float:
        return size * self.unit / 34

    def stroke(self, size: float) -> int:
        return max(round(size * self.unit / 18), 1)

    def measure(self, text: str, size: float) -> int:
        """Width in pixels."""
        return _text_width(text, self.font(size), self.stroke(size))

    def shade(self, rect: _Rect) -> None:
        """Darken a rectangle, clipped to the image."""
        x, y = max(rect.x, 0), max(rect.y, 0)
        part = self.image[y : max(rect.y + rect.h, 0), x : max(rect.x + rect.w, 0)]
        if part.size:
            part[:] = cv2.convertScaleAbs(part, alpha=SHADE)

    def clock(self, stamp_ns: int) -> _Rect:
        """Time of the frame, top right."""
        text, size = _time_of_day(stamp_ns), 15
        width, height = self.measure(text, size) + 2 * self.px(8), self.px(24)
        rect = _Rect(self.width - width, 0, width, height)
        self.shade(rect)
        self.text((rect.x + self.px(8), self.px(17)), text, size, GREY)
        return rect

    def caption(self, caption: Caption) -> _Rect:
        """The sentence on a band at the bottom; the reason of an abstention small in its place."""
        size, colour = (15, GREY) if caption.abstained else (24, WHITE)
        text = f"no caption: {caption.abstain_reason}" if caption.abstained else caption.text
        lines = self._wrapped(_ascii(text), size, self.width - 2 * self.px(20))
        pitch, pad = self.px(size * 1.3), self.px(10)
        height = pitch * len(lines) + 2 * pad
        rect = _Rect(0, self.height - height, self.width, height)
        self.shade(rect)
        for i, line in enumerate(lines):
            left = (self.width - self.measure(line, size)) // 2
            self.text((left, rect.y + pad + pitch * i + self.px(size * 0.9)), line, size, colour)
        return rect

    def _wrapped(self, text: str, size: float, width: int) -> list[str]:
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and self.measure(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines

    def face(self, face: FaceFeatures, box: _Rect) -> _Rect:
        """The box with a tab that names the track and its leading expression."""
        colour = track_colour(face.track.track_id)
        corner = (box.x + box.w, box.y + box.h)
        cv2.rectangle(self.image, (box.x, box.y), corner, colour, self.px(2), cv2.LINE_8)
        text, size = f"#{face.track.track_id}{_leading(face)}", 17
        width, height = self.measure(text, size) + 2 * self.px(6), self.px(23)
        left = min(max(box.x, 0), max(self.width - width, 0))
        top = box.y - height if box.y >= height else max(box.y, 0)
        cv2.rectangle(self.image, (left, top), (left + width, top + height), colour, cv2.FILLED)
        self.text((left + self.px(6), top + self.px(17)), text, size, DARK)
        return _Rect(left, top, width, height)

    def panel(self, face: FaceFeatures, box: _Rect, taken: Sequence[_Rect], *, crowd: int) -> _Rect | None:
        """The largest panel that hides nothing important, drawn; None when not even the smallest fits."""
        colour = track_colour(face.track.track_id)
        for emotions, units in ((7, 5), (3, 3), (0, 3))[0 if crowd == 1 else 1 if crowd <= 3 else 2 :]:
            rows = [*_emotion_rows(face, emotions, colour), *_au_rows(face.action_units, units)]
            rect = self._place(len(rows), box, taken) if rows else None
            if rect is not None:
                self._rows(rows, rect, colour)
                return rect
        return None

    def _place(self, rows: int, box: _Rect, taken: Sequence[_Rect]) -> _Rect | None:
        width, height, gap = self.px(236), self.px(ROW) * rows + self.px(9), self.px(6)
        top = min(max(box.y, 0), self.height - height)
        if top < 0 or width > self.width:
            return None
        under = min(max(box.x, 0), self.width - width)
        left, right = box.x - width - gap, box.x + box.w + gap
        places = [(right, top), (left, top), (under, box.y + box.h + gap), (self.width - width, top), (0, top)]
        for x, y in places:
            rect = _Rect(x, y, width, height)
            inside = 0 <= x <= self.width - width and 0 <= y <= self.height - height
            # A close-up leaves no room beside the face: its edge may be covered, its middle may not.
            core = _Rect(box.x + box.w // 5, box.y, box.w * 3 // 5, box.h)
            if inside and not rect.overlap(core) and not any(rect.overlap(other) for other in taken):
                return rect
        return None

    def _rows(self, rows: Sequence[_Row], rect: _Rect, colour: Colour) -> None:
        self.shade(rect)
        cv2.rectangle(self.image, (rect.x, rect.y), (rect.x + self.px(2), rect.y + rect.h - 1), colour, cv2.FILLED)
        left, full, size = rect.x + self.px(10), rect.w - self.px(18), 15
        figures = self.measure("0.00", size)
        for i, row in enumerate(rows):
            top = rect.y + self.px(4) + self.px(ROW) * i
            self.text((left, top + self.px(15)), row.text, size)
            self.text((left + full - figures, top + self.px(15)), f"{row.value:.2f}", size)
            for length, tint in ((full, DIM), (round(full * row.value), row.colour)):
                if length:
                    corner = (left + length, top + self.px(ROW) - self.px(2))
                    cv2.rectangle(self.image, (left, corner[1] - self.px(2)), corner, tint, cv2.FILLED)


def _scaled_copy(image: RGB, min_width: int) -> RGB:
    height, width = image.shape[:2]
    if width >= min_width:
        return image.copy()
    size = (min_width, round(height * min_width / width))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _emotion_rows(face: FaceFeatures, count: int, colour: Colour) -> list[_Row]:
    """All expressions in their own order, so that bars keep their place; or the strongest ``count``."""
    values = face.emotion.probabilities
    order = range(len(values)) if count >= len(values) else np.argsort(-values, kind="stable")[:count].tolist()
    return [_Row(face.emotion.labels[i], float(values[i]), colour) for i in order]


def _au_rows(units: FaceActionUnits, count: int) -> list[_Row]:
    """The strongest active action units with number, name and, where only one side acts, that side."""
    strongest: dict[int, tuple[float, Side]] = {}
    for au, side, value in zip(units.au, units.side, units.intensity.tolist(), strict=True):
        before = strongest.get(au, (0.0, side))
        both = au in strongest and min(before[0], value) >= ACTIVE
        strongest[au] = (max(before[0], value), Side.BOTH if both else side if value >= before[0] else before[1])
    active = sorted(((value, au, side) for au, (value, side) in strongest.items() if value >= ACTIVE), reverse=True)
    return [_Row(_au_text(au, side), min(value, 1.0), WHITE) for value, au, side in active[:count]]


def _au_text(au: int, side: Side) -> str:
    suffix = "" if side is Side.BOTH else f" {side.name[0]}"
    return f"AU{au} {AU_NAMES.get(au, 'action unit')}{suffix}"


def _leading(face: FaceFeatures) -> str:
    values = face.emotion.probabilities
    if not len(values):
        return ""
    best = int(values.argmax())
    return f" {face.emotion.labels[best]} {values[best]:.0%}"


def _time_of_day(stamp_ns: int) -> str:
    seconds, rest = divmod(stamp_ns, NS_PER_S)
    return f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}"


def _ascii(text: str) -> str:
    """The fonts have ASCII only: accents are dropped, typographic dashes and quotes replaced."""
    plain = text.translate(str.maketrans("–—‘’“”", "--''\"\""))
    return unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()


@lru_cache(maxsize=4096)
def _text_width(text: str, font: float, stroke: int) -> int:
    (width, _), _ = cv2.getTextSize(text, FONT, font, stroke)
    return int(width)
