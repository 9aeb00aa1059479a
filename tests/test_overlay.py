"""The overlay: what is drawn where, and the node that publishes it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage

from emo_msgs.msg import EmotionCaption
from emo_perception import from_msg
from emo_perception import types as t
from emo_perception.images import image_from_msg
from emo_perception.nodes import convert, qos
from emo_perception.nodes.overlay import OverlayNode
from emo_perception.overlay import beside, draw, track_colour

STAMP = 1_700_000_000_123_456_789
BACKGROUND = 200


def face(track_id, box, happy=0.8, smile=0.6):
    track = t.FaceTrack(
        track_id, 0.9, 0, np.array(box, np.float32), np.zeros((5, 2), np.float32), np.zeros(3, np.float32)
    )
    units = t.FaceActionUnits(track_id, "blendshape", (12,), (t.Side.BOTH,), np.array([smile], np.float32))
    emotion = t.FaceEmotion(track_id, "fer7", ("happy", "neutral"), np.array([happy, 1 - happy], np.float32))
    return t.FaceFeatures(track, units, emotion)


def features(*faces, size_wh=(640, 480), stamp=STAMP):
    return t.EmotionFeatures(stamp, "camera_optical_frame", size_wh, faces)


def frame(size_wh=(640, 480), stamp=STAMP):
    return t.Frame(stamp, np.full((size_wh[1], size_wh[0], 3), BACKGROUND, np.uint8), "camera_optical_frame")


def caption(text, reason="", stamp=STAMP):
    return t.Caption(
        stamp, "c", stamp, stamp, text, (1,), "happy", 0.5, (), "m", abstained=bool(reason), abstain_reason=reason
    )


def of_colour(image, colour):
    """Mask of the pixels that have exactly this colour."""
    return (image == np.array(colour, np.uint8)).all(axis=-1)


def changed(image):
    """Mask of the pixels that are not background."""
    return (image != BACKGROUND).any(axis=-1)


@pytest.mark.parametrize(("min_width", "scale"), [(0, 1), (1280, 2)])
def test_the_box_is_where_the_face_is_and_the_face_stays_visible(min_width, scale):
    x, y, w, h = 200, 120, 100, 140
    image = draw(frame(), features(face(1, (x, y, w, h))), None, min_width=min_width)
    assert image.shape == (480 * scale, 640 * scale, 3)
    mask = of_colour(image, track_colour(1))
    for px, py in ((x + 50, y), (x + 50, y + h), (x, y + 90), (x + w, y + 90)):
        assert mask[py * scale, px * scale]
    inner = changed(image)[(y + 8) * scale : (y + h - 8) * scale, (x + 8) * scale : (x + w - 8) * scale]
    assert not inner.any()


def test_the_frame_itself_is_never_drawn_on():
    source = frame()
    source.image.flags.writeable = False
    draw(source, features(face(1, (200, 120, 100, 140))), caption("A face."))
    assert (source.image == BACKGROUND).all()


def test_features_of_another_frame_are_refused():
    with pytest.raises(ValueError, match=f"features of stamp {STAMP + 1} do not belong to frame {STAMP}"):
        draw(frame(), features(stamp=STAMP + 1), None)


def test_the_bars_are_as_long_as_the_probability():
    def bar(happy):
        image = draw(frame(), features(face(1, (100, 120, 100, 140), happy=happy)), None)
        mask = of_colour(image, track_colour(1))[:, 215:]  # right of the box
        return mask.sum(axis=1)

    strong, weak = bar(0.8), bar(0.6)
    assert strong.max() / weak.max() == pytest.approx(0.8 / 0.6, rel=0.03)


def test_weak_action_units_are_left_out_and_strong_ones_make_the_panel_longer():
    def panel_rows(smile):
        mask = changed(draw(frame(), features(face(1, (100, 120, 100, 140), smile=smile)), None))
        return mask[:, 300].sum()

    assert panel_rows(0.9) > panel_rows(0.1) > 0


def test_six_people_do_not_hide_each_other():
    boxes = [(20 + 105 * i, 100 + 60 * (i % 2), 60, 80) for i in range(6)]
    image = draw(frame(), features(*(face(i + 1, box) for i, box in enumerate(boxes))), caption("Six people."))
    mask = changed(image)
    for i, (x, y, w, h) in enumerate(boxes):
        assert of_colour(image, track_colour(i + 1))[y + h, x + w // 2]
        assert not mask[y + 8 : y + h - 8, x + 8 : x + w - 8].any()


def test_the_caption_is_a_band_at_the_bottom_that_grows_with_the_text():
    def band(item):
        image = draw(frame(), features(), item)
        dark = changed(image).mean(axis=1) > 0.9  # smooth letters may have the background's value
        top = int(np.argmax(dark))
        assert dark[top:].all()
        assert not changed(image)[40:top].any()
        return 480 - top

    short, long = band(caption("A woman smiles.")), band(caption("A woman smiles. " * 12))
    assert long > 2 * short
    assert 0 < band(caption("", reason="nobody in view")) < short
    assert band(caption("un café – “olé”")) == short


def test_captions_of_one_moment_are_shown_together():
    one, two, three = (replace(caption(f"Person {n} smiles."), track_ids=(n,)) for n in (1, 2, 3))
    unsure, later = caption("", reason="too unsure"), caption("A woman frowns.", stamp=STAMP + 1)
    shown = None
    for new, text in (
        (unsure, ""),
        (one, "Person 1 smiles."),
        (unsure, "Person 1 smiles."),
        (two, "#1: Person 1 smiles. / #2: Person 2 smiles."),
        (three, "#1: Person 1 smiles. / #2: Person 2 smiles. / #3: Person 3 smiles."),
        (later, "A woman frowns."),
    ):
        shown = beside(shown, new)
        assert shown.text == text


def test_accents_and_quotes_are_replaced_by_what_the_font_has():
    left, right = (draw(frame(), features(), caption(text)) for text in ("un café – “olé”…", 'un cafe - "ole"...'))
    np.testing.assert_array_equal(left, right)


def test_without_faces_only_the_time_is_drawn():
    mask = changed(draw(frame(), features(), None))
    assert mask[:30, 500:].any()
    assert not mask[40:].any()


@pytest.mark.parametrize("size_wh", [(64, 48), (640, 480), (1920, 1080)])
@pytest.mark.parametrize("box", [(-50, -40, 100, 90), (10, 10, 5000, 4000), (600, 470, 90, 90), (-500, 0, 20, 20)])
def test_boxes_may_reach_outside_the_image(size_wh, box):
    image = draw(frame(size_wh), features(face(3, box), size_wh=size_wh), caption("A face."))
    assert image.shape == (size_wh[1], size_wh[0], 3)


# The node


class Viewer:
    """An overlay node and, in the same process, somebody who may look at it."""

    def __init__(self, *arguments):
        args = [word for argument in arguments for word in ("-p", argument)]
        rclpy.init(
            args=["--ros-args", *args] if args else [],
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.overlay = OverlayNode()
        self.node = rclpy.create_node("viewer", use_global_arguments=False)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.overlay)
        self.executor.add_node(self.node)
        self.pictures: list[CompressedImage] = []
        self.captions = self.node.create_publisher(EmotionCaption, "emotion_caption", qos.CAPTION)

    def look(self):
        self.node.create_subscription(CompressedImage, "overlay/compressed", self.pictures.append, qos.IMAGE_SUB)
        self.until(lambda: self.overlay.count_subscribers("overlay/compressed"))

    def until(self, condition, deadline_s=20.0):
        end = time.monotonic() + deadline_s
        while not condition():
            assert time.monotonic() < end
            self.executor.spin_once(timeout_sec=0.05)

    def close(self):
        self.overlay.close()
        self.executor.shutdown()
        self.overlay.destroy_node()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def picture_of(self, stamp):
        """Offer a frame and wait for its picture."""
        before = len(self.pictures)
        self.overlay.offer(frame(stamp=stamp), features(face(1, (200, 120, 100, 140)), stamp=stamp))
        self.until(lambda: len(self.pictures) > before)
        return self.pictures[-1]


@contextmanager
def viewer(*arguments):
    made = Viewer(*arguments)
    try:
        yield made
    finally:
        made.close()


def test_the_picture_has_the_stamp_and_the_frame_id_of_its_frame():
    with viewer() as v:
        v.look()
        message = v.picture_of(STAMP + 7)
        assert from_msg.stamp_ns(message.header.stamp) == STAMP + 7
        assert (message.header.frame_id, message.format) == ("camera_optical_frame", "jpeg")
        picture = image_from_msg(message)
        assert picture.shape == (720, 960, 3)  # scaled up to the parameter's width
        assert changed(picture).any()


def test_nothing_is_drawn_while_nobody_looks():
    with viewer() as v:
        for i in range(5):
            v.overlay.offer(frame(stamp=STAMP + i), features(stamp=STAMP + i))
        assert v.overlay.work().offered == 0
        v.look()
        assert from_msg.stamp_ns(v.picture_of(STAMP + 9).header.stamp) == STAMP + 9
        assert v.overlay.work().offered == 1


def test_always_draws_without_anybody():
    with viewer("always:=true") as v:
        v.overlay.offer(frame(), features())
        v.until(lambda: v.overlay.work().taken == 1)


def test_the_newest_frame_wins_and_the_others_are_counted():
    with viewer("always:=true") as v:
        for i in range(50):
            v.overlay.offer(frame(stamp=STAMP + i), features(stamp=STAMP + i))
        v.until(lambda: v.overlay.work().waiting == 0)
        work = v.overlay.work()
        assert work.offered == 50
        assert work.dropped == 50 - work.taken > 0


def test_not_enabled_means_no_topic():
    with viewer("enabled:=false") as v:
        v.overlay.offer(frame(), features())
        assert "overlay/compressed" not in [name for name, _ in v.overlay.get_topic_names_and_types()]
        assert v.overlay.count_publishers("overlay/compressed") == 0


def test_the_caption_is_drawn_until_the_stamps_jump_back():
    def band(message):
        return changed_jpeg(message)[-20:].mean()

    def changed_jpeg(message):
        return np.abs(image_from_msg(message).astype(int) - BACKGROUND).max(axis=-1) > 40

    with viewer() as v:
        v.look()
        v.until(lambda: v.captions.get_subscription_count() == 1)
        assert band(v.picture_of(STAMP)) == 0
        v.captions.publish(convert.caption_msg(caption("A woman smiles.")))
        stamps = iter(range(STAMP + 1, STAMP + 1000))
        v.until(lambda: band(v.picture_of(next(stamps))) > 0.9)
        assert band(v.picture_of(STAMP - 5 * t.NS_PER_S)) == 0


def test_a_frame_that_cannot_be_drawn_costs_only_itself():
    with viewer() as v:
        v.look()
        v.overlay.offer(frame(stamp=1), features(stamp=2))
        v.until(lambda: v.overlay.work().taken == 1)
        assert from_msg.stamp_ns(v.picture_of(STAMP).header.stamp) == STAMP
