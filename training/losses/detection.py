"""The losses of SCRFD: which anchors answer for which face, and how far off they are.

Sources: adaptive training sample selection (Zhang et al., CVPR 2020), quality focal loss (Li et al., NeurIPS 2020), DIoU
(Zheng et al., AAAI 2020), with the weights of SCRFD's published recipe. One deviation: a face on which the selection
leaves no anchor gets the one that overlaps it most, so that none is unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from emo_models.detection import ANCHOR_SIDES, STRIDES, anchor_centres
from emo_models.networks.scrfd import SCRFDOutput

#: Anchors of each stride that are looked at for a face.
NEAREST: Final = 9
BOX_WEIGHT: Final = 2.0
POINTS_WEIGHT: Final = 0.1
#: Below this error, in strides, the points' loss is quadratic.
POINTS_BETA: Final = 1 / 9


@dataclass(frozen=True)
class Anchors:
    """All anchors of an image, stride after stride, in the order of the maps. Boxes are x1, y1, x2, y2 in pixels."""

    centres: Tensor
    boxes: Tensor
    strides: Tensor
    counts: tuple[int, ...]


class Targets(NamedTuple):
    """What the anchors of one image should say."""

    #: bool [A]: answers for a face; int64 [A]: which one.
    positive: Tensor
    face: Tensor


@lru_cache(maxsize=8)
def anchors_of(height: int, width: int) -> Anchors:
    """The anchors of an input of this size."""
    centres, sides, strides, counts = [], [], [], []
    for stride, pair in zip(STRIDES, ANCHOR_SIDES, strict=True):
        here = torch.from_numpy(anchor_centres(height, width, stride).copy())
        centres.append(here)
        sides.append(torch.tensor(pair, dtype=torch.float32).repeat(len(here) // len(pair)))
        strides.append(torch.full((len(here),), float(stride)))
        counts.append(len(here))
    centre, half = torch.cat(centres), torch.cat(sides)[:, None] / 2
    return Anchors(centre, torch.cat([centre - half, centre + half], 1), torch.cat(strides), tuple(counts))


def overlaps(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """Intersection over union of boxes x1, y1, x2, y2: ``[N, M]``."""
    low = torch.maximum(a_N4[:, None, :2], b_M4[None, :, :2])
    high = torch.minimum(a_N4[:, None, 2:], b_M4[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area_a, area_b = (a_N4[:, 2:] - a_N4[:, :2]).prod(-1), (b_M4[:, 2:] - b_M4[:, :2]).prod(-1)
    return common / (area_a[:, None] + area_b[None] - common).clamp(min=1e-6)


def assign(anchors: Anchors, faces_F4: Tensor) -> Targets:
    """Which anchors answer for which face (ATSS): of each stride the :data:`NEAREST` to the face's centre, those of
    them whose overlap is at least the mean plus the standard deviation of all, and whose centre lies in the face. An
    anchor of several faces answers for the one that it overlaps most.
    """
    count = len(anchors.boxes)
    if not len(faces_F4):
        return Targets(torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.int64))
    iou_AF = overlaps(anchors.boxes, faces_F4)
    middle_F2 = (faces_F4[:, :2] + faces_F4[:, 2:]) / 2
    distance_AF = torch.cdist(anchors.centres, middle_F2)
    near, first = [], 0
    for number in anchors.counts:
        nearest = distance_AF[first : first + number].topk(min(NEAREST, number), dim=0, largest=False).indices
        near.append(nearest + first)
        first += number
    near_KF = torch.cat(near)
    chosen = iou_AF.gather(0, near_KF)
    enough_F = chosen.mean(0) + chosen.std(0)
    x, y = anchors.centres[near_KF].unbind(-1)
    left, top, right, bottom = faces_F4.unbind(1)
    inside = torch.stack([x - left, y - top, right - x, bottom - y]).amin(0) > 0
    candidate_AF = torch.zeros_like(iou_AF, dtype=torch.bool)
    candidate_AF.scatter_(0, near_KF, (chosen >= enough_F) & inside)
    unseen = ~candidate_AF.any(0)
    candidate_AF[iou_AF.argmax(0)[unseen], unseen.nonzero()[:, 0]] = True
    face_A = torch.where(candidate_AF, iou_AF, -1.0).argmax(1)
    return Targets(candidate_AF.any(1), face_A)


def quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """``|q - p|² · BCE(p, q)`` summed; the target of an anchor is its box's overlap with the face, 0 without a face."""
    loss = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return ((quality - logits.sigmoid()).square() * loss).sum()


def overlaps_of_pairs(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """Intersection over union of each pair of boxes: ``[N]``."""
    low, high = torch.maximum(a_N4[:, :2], b_N4[:, :2]), torch.minimum(a_N4[:, 2:], b_N4[:, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    area = (a_N4[:, 2:] - a_N4[:, :2]).clamp(min=0).prod(-1) + (b_N4[:, 2:] - b_N4[:, :2]).prod(-1)
    return common / (area - common).clamp(min=1e-6)


def distance_iou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """``1 - IoU + d²/c²`` of each pair of boxes: d between the centres, c the diagonal around both. ``[N]``."""
    around = torch.maximum(a_N4[:, 2:], b_N4[:, 2:]) - torch.minimum(a_N4[:, :2], b_N4[:, :2])
    apart = (a_N4[:, :2] + a_N4[:, 2:] - b_N4[:, :2] - b_N4[:, 2:]) / 2
    return 1 - overlaps_of_pairs(a_N4, b_N4) + apart.square().sum(-1) / around.square().sum(-1).clamp(min=1e-6)


def detection_loss(
    output: SCRFDOutput,
    size_hw: tuple[int, int],
    faces: list[Tensor],
    points: list[Tensor],
    *,
    points_weight: float = POINTS_WEIGHT,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the three losses over a batch, and each of them.

    ``faces``: per image float32 [F, 4], x1, y1, x2, y2 in pixels; ``points``: [F, 5, 2], NaN where not annotated. The
    score's loss is per answering anchor; of box and points the anchors count by their scores.
    """
    anchors = anchors_of(*size_hw)
    device = output.score_8.device
    centres, strides = anchors.centres.to(device), anchors.strides.to(device)
    scores_NA, boxes_NA4, points_NA = (torch.cat(maps, 1).float() for maps in (output[:3], output[3:6], output[6:]))
    sides = boxes_NA4 * strides[:, None]
    boxes_NA4 = torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], -1)
    quality_NA = torch.zeros_like(scores_NA)
    answers: list[Answers] = []
    for number, (face_F4, point_F52) in enumerate(zip(faces, points, strict=True)):
        if not len(face_F4):
            continue
        positive, which = (each.to(device) for each in assign(anchors, face_F4.cpu()))
        wanted, found = face_F4.to(device)[which[positive]], boxes_NA4[number][positive]
        quality_NA[number, positive] = overlaps_of_pairs(found.detach(), wanted)
        offset = (point_F52.to(device)[which[positive]] - centres[positive][:, None]) / strides[positive][:, None, None]
        weight = scores_NA[number][positive].detach().sigmoid()
        answers.append(Answers(distance_iou(found, wanted), points_NA[number][positive], offset, weight))
    count = sum(len(each.weight) for each in answers)
    score = quality_focal(scores_NA, quality_NA) / max(count, 1)
    if not answers:
        nothing = (boxes_NA4.sum() + points_NA.sum()) * 0.0
        return score + nothing, {"score": score, "box": nothing, "points": nothing}
    all_of = Answers(*(torch.cat(parts) for parts in zip(*answers, strict=True)))
    box = BOX_WEIGHT * (all_of.box * all_of.weight).sum() / all_of.weight.sum()
    point = points_weight * points_loss(all_of)
    return score + box + point, {"score": score, "box": box, "points": point}


class Answers(NamedTuple):
    """Of the anchors that answer for faces: loss of the box, points said and wanted in strides, score as weight."""

    box: Tensor
    said: Tensor
    wanted: Tensor
    weight: Tensor


def points_loss(answers: Answers) -> Tensor:
    """Smooth L1 over the five points, summed, of the faces whose points are annotated."""
    said = answers.said.reshape(-1, 5, 2)
    known = answers.wanted.isfinite()
    loss = F.smooth_l1_loss(said, torch.where(known, answers.wanted, said.detach()), beta=POINTS_BETA, reduction="none")
    weight = answers.weight * known.flatten(1).any(1)
    return (loss.sum((1, 2)) * weight).sum() / weight.sum().clamp(min=1e-6)


def as_targets(boxes_F4: Tensor) -> Tensor:
    """Boxes x, y, width, height as x1, y1, x2, y2."""
    return torch.cat([boxes_F4[:, :2], boxes_F4[:, :2] + boxes_F4[:, 2:]], 1)
