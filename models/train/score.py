"""Measuring a model as the gateway would run it. Owns reading and scaling of pictures (libswscale, bilinear, straight to the input's
size, as gateway/vision does), the two decoders, the suppression of doubles, and average precision by the COCO rules (pycocotools);
refuses to know how a model was made, so teacher, student and foreign models are judged by one script.

Boxes are [x1, y1, x2, y2] as shares of the picture; a cell speaks for its best class only, as in gateway/vision/src/detect/decoder.rs."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from . import data

# Far below any working threshold: average precision needs the whole curve.
SCORE_MIN = 0.01
CANDIDATES_MAX = 1000
MEAN = np.array((103.53, 116.28, 123.675), np.float32)
DEVIATION = np.array((57.375, 57.12, 58.395), np.float32)
BINS = 8
GROUPS = {"car": 0, "truck": 0, "bus": 0, "motorcycle": 1, "bicycle": 1, "person": 2, "garbage": 3, "garbage_bin": 4, "overflow": 4}
VEHICLES, HEAPS = 0, (3, 4)
# As in gateway/vision/src/detect/nms.rs.
NESTED_SHARE, SAME_GROUND, INNER_WORTH, SAME_HEAP = 0.7, 0.2, 0.5, 0.7


def read(path):
    """A picture as bytes [H, W, 3], BGR."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise ValueError(f"{path} is not a picture that can be read; restore or remove it")
    return picture


def scaled(picture, width, height):
    """The picture at another size by libswscale, bilinear, its shape not kept: what the gateway's scaler does."""
    if picture.shape[:2] == (height, width):
        return picture
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
    return frame.reformat(width, height, "bgr24", interpolation="BILINEAR").to_ndarray()


def cells(width, height, strides):
    """Cell positions [N, 2] (x, y) and strides [N], finest grid first, row by row."""
    points, sizes = [], []
    for stride in strides:
        ys, xs = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        points.append(np.stack((xs, ys), -1).reshape(-1, 2))
        sizes.append(np.full(xs.size, stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(sizes).astype(np.float32)


def best_of(scores, columns, score_min):
    """The cells whose best class reaches the score: their numbers, scores and classes."""
    scores = scores if columns is None else scores[:, columns]
    labels = scores.argmax(1)
    top = scores[np.arange(len(scores)), labels]
    chosen = np.flatnonzero(top >= score_min)
    chosen = chosen[np.argsort(-top[chosen], kind="stable")][:CANDIDATES_MAX]
    return chosen, top[chosen], labels[chosen]


def nanodet_boxes(rows, width, height, score_min, columns=None):
    """Boxes, scores and classes from NanoDet-Plus rows [N, classes + 32] with scores already sigmoid."""
    points, strides = cells(width, height, (8, 16, 32, 64))
    chosen, scores, labels = best_of(rows[:, : -4 * BINS], columns, score_min)
    bins = rows[chosen, -4 * BINS :].reshape(-1, 4, BINS).astype(np.float64)
    share = np.exp(bins - bins.max(-1, keepdims=True))
    d = (share @ np.arange(BINS)) / share.sum(-1) * strides[chosen, None]
    at = points[chosen] * strides[chosen, None]
    boxes = np.concatenate((at - d[:, :2], at + d[:, 2:]), 1) / np.array([width, height] * 2)
    return np.clip(boxes, 0, 1), scores, labels


def yolox_boxes(rows, width, height, score_min, columns, region):
    """The same from YOLOX rows [N, 5 + classes] (centre, log size, objectness, scores); `region` is the part of the input that the
    picture took."""
    points, strides = cells(width, height, (8, 16, 32))
    chosen, scores, labels = best_of(rows[:, 4:5] * rows[:, 5:], columns, score_min)
    stride = strides[chosen, None]
    centre, side = (rows[chosen, :2] + points[chosen]) * stride, np.exp(rows[chosen, 2:4]) * stride
    boxes = np.concatenate((centre - side / 2, centre + side / 2), 1) / np.array([*region, *region])
    return np.clip(boxes, 0, 1), scores, labels


def area(boxes):
    """Area of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def iou(box, others):
    """IoU of one box with many."""
    inter = shared(box, others)
    return inter / np.maximum(area(box) + area(others) - inter, 1e-12)


def shared(box, others):
    """Area that one box has in common with each of the others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(1)


def nested(a, b):
    """Two boxes of vehicles, one in the other and on the same ground (gateway/vision/src/detect/nms.rs)."""
    inner, outer = (a, b) if area(a) < area(b) else (b, a)
    inside = shared(inner, outer[None])[0] >= NESTED_SHARE * area(inner)
    return inside and abs(inner[3] - outer[3]) <= SAME_GROUND * (inner[3] - inner[1])


def suppress(boxes, scores, labels, names, rule, iou_max=0.6):
    """Removes doubles of boxes given in falling order of score: `class` by IoU within each class (the usual rule of published numbers),
    `gateway` by the gateway's own rule."""
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    boxes, scores, labels = boxes[solid], scores[solid], labels[solid]
    groups = labels if rule == "class" else np.array([GROUPS[n] for n in names])[labels]
    kept = []
    for index, box in enumerate(boxes):
        others = np.array(kept, np.int64)
        same = groups[others] == groups[index]
        limit = np.where(same, iou_max, np.inf)
        if rule == "gateway" and groups[index] in HEAPS:
            limit[~same & np.isin(groups[others], HEAPS)] = max(iou_max, SAME_HEAP)
        if (iou(box, boxes[others]) > limit).any():
            continue
        if rule == "gateway" and groups[index] == VEHICLES:
            place = next((p for p, k in enumerate(kept) if groups[k] == VEHICLES and nested(boxes[k], box)), None)
            if place is not None:
                if area(box) < area(boxes[kept[place]]) and scores[index] >= INNER_WORTH * scores[kept[place]]:
                    kept[place] = index
                continue
        kept.append(index)
    return boxes[kept], scores[kept], labels[kept]


def average_precision(truth, found, names):
    """AP and AP50 per class by the COCO rules over all of `truth`; `found` maps a picture's number to boxes, scores, classes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    side = 1000.0  # IoU does not change when both axes are stretched, so shares will do.
    notes, results = [], []
    for number, one in enumerate(truth):
        for box, label, crowd in zip(one.boxes.astype(float) * side, one.labels, one.crowd):
            w, h = box[2] - box[0], box[3] - box[1]
            note = {"id": len(notes) + 1, "image_id": number, "category_id": int(label), "iscrowd": int(crowd)}
            notes.append({**note, "bbox": [box[0], box[1], w, h], "area": w * h})
        boxes, scores, labels = found[number]
        for box, score, label in zip(boxes * side, scores, labels):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": number, "category_id": int(label), "bbox": bbox, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = [{"id": i, "name": n} for i, n in enumerate(names)]
        coco.dataset = {"images": [{"id": i} for i in range(len(truth))], "annotations": notes, "categories": categories, "info": {}}
        coco.createIndex()
        if not results:
            return {n: (0.0, 0.0) for n in names}
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
    # [thresholds, recalls, classes, areas, limits]; -1 stands for a class that is not in the set.
    precision = judge.eval["precision"][:, :, :, 0, 2]
    mean = lambda p: float(p[p > -1].mean()) if (p > -1).any() else float("nan")
    return {name: (mean(precision[:, :, i]), mean(precision[0, :, i])) for i, name in enumerate(names)}


def means(result):
    """Mean AP and mean AP50 over the classes that occur."""
    table = np.array(list(result.values()))
    return np.nanmean(table[:, 0]), np.nanmean(table[:, 1])


def line(result):
    """The result in one line, for logs."""
    ap, ap50 = means(result)
    return f"AP50 {ap50:.4f} AP {ap:.4f} (" + ", ".join(f"{n} {v[1]:.3f}" for n, v in result.items()) + ")"


@dataclass
class OnnxModel:
    """An ONNX file, run on the CPU."""

    path: Path
    names: tuple

    def __post_init__(self):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        (given,) = self.session.get_inputs()
        (made,) = self.session.get_outputs()
        _, _, self.height, self.width = given.shape
        self.input, width = given.name, made.shape[2]
        self.yolox = made.shape[1] == len(cells(self.width, self.height, (8, 16, 32))[1])
        classes = width - 5 if self.yolox else width - 4 * BINS
        labels = self.session.get_modelmeta().custom_metadata_map.get("labels")
        labels = labels.split(",") if labels else None
        if labels is None and classes == 80:
            columns = data.COCO_COLUMN
        elif labels is not None and len(labels) == classes:
            columns = {name: column for column, name in enumerate(labels)}
        else:
            raise ValueError(f"{self.path} has {classes} classes and no word on what they are; export it again")
        missing = [n for n in self.names if n not in columns]
        if missing:
            raise ValueError(f"{self.path} does not know {', '.join(missing)}; choose the other --set")
        self.columns = [columns[n] for n in self.names]

    def detect(self, picture, rule="class", iou_max=0.6, score_min=SCORE_MIN):
        """Boxes, scores and classes (index in `names`) of a picture [H, W, 3] BGR."""
        size = (self.width, self.height)
        if self.yolox:
            scale = min(self.width / picture.shape[1], self.height / picture.shape[0])
            region = [max(1, round(s * scale)) for s in (picture.shape[1], picture.shape[0])]
            x = np.full((self.height, self.width, 3), 114, np.float32)
            x[: region[1], : region[0]] = scaled(picture, *region)
        else:
            x = (scaled(picture, *size).astype(np.float32) - MEAN) / DEVIATION
        rows = self.session.run(None, {self.input: np.ascontiguousarray(x.transpose(2, 0, 1)[None])})[0][0]
        if self.yolox:
            boxes, scores, labels = yolox_boxes(rows, *size, score_min, self.columns, region)
        else:
            boxes, scores, labels = nanodet_boxes(rows, *size, score_min, self.columns)
        return suppress(boxes, scores, labels, self.names, rule, iou_max)


def evaluate(path, which, folder, rule, iou_max):
    """AP and AP50 per class of an ONNX file on the validation pictures of `which` (litter or street)."""
    names = data.LITTER if which == "litter" else data.STREET
    truth = data.litter_truth(folder) if which == "litter" else data.street_truth(folder)
    model = OnnxModel(path, names)
    found = {number: model.detect(read(one.path), rule, iou_max) for number, one in enumerate(truth)}
    return average_precision(truth, found, names)


def false_alarms(path, folder, thresholds):
    """Litter classes found on the street pictures, where hardly any is: mean number per picture at each score."""
    model = OnnxModel(path, data.LITTER)
    scores = [(l, s) for one in data.street_truth(folder) for _, s, l in zip(*model.detect(read(one.path)))]
    count = len(data.street_truth(folder))
    return {n: [sum(1 for l, s in scores if l == i and s >= t) / count for t in thresholds] for i, n in enumerate(data.LITTER)}
