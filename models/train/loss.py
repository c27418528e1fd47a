"""What the network learns from. Owns the assignment of boxes to cells and the three losses of NanoDet-Plus (quality focal loss,
generalised IoU, distribution focal loss), and the loss by which a student keeps a teacher's classes; refuses to know about pictures.
Sources: Li et al., arXiv 2006.04388 (QFL, DFL); Rezatofighi et al., arXiv 1902.09630; Ge et al., arXiv 2107.08430 (dynamic k);
RangiLyu, NanoDet-Plus (2021; soft label cost). All boxes are [x1, y1, x2, y2] in pixels."""

import torch
from torch.nn import functional as F

from .nanodet import BINS, SIDES

TOP_CANDIDATES = 13
IOU_COST = 3.0
GIOU_WEIGHT = 2.0
DFL_WEIGHT = 0.25
NEVER = 1e8
# Cells of which the teacher says less than this hold background as far as boxes are concerned.
TEACHER_BOX_MIN = 0.1


def distances_of(values, strides):
    """Distances left, top, right, bottom in pixels from the bins [..., 32]."""
    bins = torch.arange(BINS, dtype=values.dtype)
    return values.unflatten(-1, (4, BINS)).softmax(-1).matmul(bins) * strides[..., None]


def boxes_of(values, points, strides):
    """Boxes from the bins."""
    d = distances_of(values, strides)
    return torch.cat((points - d[..., :2], points + d[..., 2:]), -1)


def overlap(a, b):
    """IoU and union and enclosing area of boxes that broadcast against each other."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inter = (high - low).clamp(min=0).prod(-1)
    area = lambda c: (c[..., 2:] - c[..., :2]).clamp(min=0).prod(-1)
    union = area(a) + area(b) - inter + 1e-6
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1) + 1e-6
    return inter / union, union, hull


@torch.no_grad()
def assign(logits, boxes, points, strides, truth, labels):
    """Which cells answer for which box: (cells, box of each cell, IoU reached). `logits` [N, classes] and `boxes` [N, 4] are what the
    network says now; `truth` [G, 4] and `labels` [G] what is there. Every box gets at least one cell unless none lies in it."""
    if not len(truth):
        none = torch.zeros(0, dtype=torch.long)
        return none, none, torch.zeros(0)
    sides = torch.cat((points[:, None] - truth[None, :, :2], truth[None, :, 2:] - points[:, None]), -1)
    inside = sides.amin(-1) > 0
    cells = inside.any(1).nonzero()[:, 0]
    if not len(cells):
        none = torch.zeros(0, dtype=torch.long)
        return none, none, torch.zeros(0)
    iou = overlap(boxes[cells][:, None], truth[None])[0]
    logit = logits[cells][:, labels]
    score = logit.sigmoid()
    # Cost of the box's own class at the quality it would have; the other classes' cost does not depend on the box.
    own = F.binary_cross_entropy_with_logits(logit, iou, reduction="none") * (iou - score).square()
    centre = (truth[:, :2] + truth[:, 2:]) / 2
    far = (points[cells][:, None] - centre[None]).norm(dim=-1) / strides[cells][:, None]
    cost = own - IOU_COST * (iou + 1e-7).log() + 10.0 ** (far.clamp(max=10) - 3) + NEVER * ~inside[cells]
    ranked = iou.topk(min(TOP_CANDIDATES, len(cells)), 0).values.sum(0).int().clamp(min=1)
    chosen = torch.zeros_like(cost, dtype=torch.bool)
    order = cost.argsort(0)
    for box, k in enumerate(ranked.tolist()):
        chosen[order[:k, box], box] = True
    chosen &= inside[cells]
    # A cell wanted by several boxes goes to the cheapest.
    cost = cost.masked_fill(~chosen, 2 * NEVER)
    taken = chosen.any(1).nonzero()[:, 0]
    which = cost[taken].argmin(1)
    return cells[taken], which, iou[taken, which]


def quality_focal(logits, targets):
    """Binary cross entropy against soft targets, weighted by the square of the error."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * (logits.sigmoid() - targets).square()


def detection_loss(rows, points, strides, batch, first=0):
    """Sum of the losses over a batch. `rows` [B, N, classes + 32] are the network's raw outputs, `batch` a list of (boxes, labels) per
    picture. Classes before `first` are left alone: another loss speaks for them."""
    classes = rows.shape[-1] - SIDES
    logits, bins = rows[..., first:classes], rows[..., classes:]
    boxes = boxes_of(bins.detach(), points, strides)
    targets = torch.zeros_like(logits)
    at, to, sure = [], [], []
    for one, (truth, labels) in enumerate(batch):
        cells, which, iou = assign(logits[one].detach(), boxes[one], points, strides, truth, labels)
        targets[one, cells, labels[which]] = iou
        at.append(torch.stack((torch.full_like(cells, one), cells), 1))
        to.append(truth[which])
        sure.append(logits[one].detach()[cells].sigmoid().amax(-1) if len(cells) else torch.zeros(0))
    at, to, weight = torch.cat(at), torch.cat(to), torch.cat(sure)
    loss = quality_focal(logits, targets).sum() / max(1, len(at))
    if not len(at):
        return loss + bins.sum() * 0
    mine, stride = bins[at[:, 0], at[:, 1]], strides[at[:, 1]]
    point = points[at[:, 1]]
    predicted = boxes_of(mine, point, stride)
    iou, union, hull = overlap(predicted, to)
    total = weight.sum().clamp(min=1e-3)
    giou = ((1 - iou + (hull - union) / hull) * weight).sum() / total
    wanted = torch.cat((point - to[:, :2], to[:, 2:] - point), -1) / stride[:, None]
    dfl = (distribution_focal(mine, wanted) * weight[:, None]).sum() / (4 * total)
    return loss + GIOU_WEIGHT * giou + DFL_WEIGHT * dfl


def distribution_focal(values, wanted):
    """Cross entropy of the two bins next to the wanted distance (in strides), per side."""
    wanted = wanted.clamp(0, BINS - 1 - 0.01)
    low = wanted.floor()
    share = wanted - low
    log = values.unflatten(-1, (4, BINS)).log_softmax(-1)
    take = lambda index: log.gather(-1, index.long()[..., None])[..., 0]
    return -(take(low) * (1 - share) + take(low + 1) * share)


def keeping_loss(rows, taught, classes):
    """How far the first `classes` classes are from the teacher's, and the boxes where the teacher sees something. `taught`
    [B, N, classes + 32] are the teacher's raw outputs."""
    targets = taught[..., :classes].sigmoid()
    scale = targets.amax(-1).clamp(min=0).sum().clamp(min=1)
    loss = quality_focal(rows[..., :classes], targets).sum() / scale
    weight = targets.amax(-1)
    seen = weight > TEACHER_BOX_MIN
    if not seen.any():
        return loss
    mine = rows[..., -SIDES:][seen].unflatten(-1, (4, BINS)).log_softmax(-1)
    theirs = taught[..., -SIDES:][seen].unflatten(-1, (4, BINS)).softmax(-1)
    apart = F.kl_div(mine, theirs, reduction="none").sum(-1).mean(-1)
    return loss + (apart * weight[seen]).sum() / scale
