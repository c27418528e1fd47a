"""Pictures and labels. Owns the decoded copy of the training set (`prepare`), the reading of the validation folders, and the random
changes a picture goes through before the network sees it; refuses to read a validation folder for training.

Boxes are [x1, y1, x2, y2] as shares of the picture's width and height. Every random choice comes from the generator passed in, so that a
run can be repeated and resumed."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

LITTER = ("garbage", "garbage_bin", "overflow")
STREET = ("car", "truck", "bus", "motorcycle", "bicycle", "person")
# Column of each street class in the 80 COCO classes.
COCO_COLUMN = {"person": 0, "bicycle": 1, "car": 2, "motorcycle": 3, "bus": 5, "truck": 7}
SIDE = 416
GREY = (114, 114, 114)
# A box of which less than this share is left after a crop no longer counts.
VISIBLE_MIN = 0.3


@dataclass
class Truth:
    """One validation picture: its file, its boxes as shares, and the class index of each."""

    path: Path
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


def read_yolo(path):
    """Boxes and classes of one YOLO label file; raises ValueError with file and line when a line cannot be used."""
    boxes, labels = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        try:
            kind, cx, cy, w, h = line.split()
            kind, cx, cy, w, h = int(kind), float(cx), float(cy), float(w), float(h)
        except ValueError:
            raise ValueError(f"{path}:{number}: expected `class cx cy w h`, found {line!r}") from None
        if not 0 <= kind < len(LITTER):
            raise ValueError(f"{path}:{number}: class {kind} is unknown; expected 0 to {len(LITTER) - 1}")
        box = np.clip((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 0, 1)
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append(box)
            labels.append(kind)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def litter_truth(data, part="valid"):
    """The labelled pictures of one part of the litter set, by name."""
    folder = Path(data) / "litter" / part
    pictures = sorted((folder / "images").glob("*.jpg"))
    if not pictures:
        raise ValueError(f"no pictures in {folder}/images; give the folder that holds litter/ and street/ as --data")
    truth = []
    for picture in pictures:
        boxes, labels = read_yolo(folder / "labels" / f"{picture.stem}.txt")
        truth.append(Truth(picture, boxes, labels, np.zeros(len(labels), bool)))
    return truth


def street_truth(data):
    """The street pictures with their COCO boxes."""
    folder = Path(data) / "street"
    coco = json.loads((folder / "coco.json").read_text())
    names = {c["id"]: c["name"] for c in coco["categories"]}
    found = {}
    for note in coco["annotations"]:
        if names.get(note["category_id"]) in STREET:
            found.setdefault(note["image_id"], []).append(note)
    truth = []
    for image in coco["images"]:
        notes = found.get(image["id"], [])
        size = np.array([image["width"], image["height"]] * 2, np.float32)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (n["bbox"] for n in notes)], np.float32).reshape(-1, 4)
        labels = np.array([STREET.index(names[n["category_id"]]) for n in notes], np.int64)
        crowd = np.array([bool(n.get("iscrowd")) for n in notes], bool)
        truth.append(Truth(folder / "images" / image["file_name"], boxes / size, labels, crowd))
    return truth


def prepare(data, work):
    """Decodes the training pictures once into one file of bytes, [count, 416, 416, 3] BGR, beside their labels."""
    truth = litter_truth(data, "train")
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    pixels = np.lib.format.open_memmap(work / "pixels.part.npy", "w+", np.uint8, (len(truth), SIDE, SIDE, 3))
    for index, one in enumerate(truth):
        picture = cv2.imread(str(one.path))
        if picture is None:
            raise ValueError(f"{one.path} is not a picture that can be read; restore or remove it")
        pixels[index] = picture if picture.shape[:2] == (SIDE, SIDE) else cv2.resize(picture, (SIDE, SIDE))
    pixels.flush()
    counts = np.array([len(t.labels) for t in truth])
    np.savez(
        work / "labels.npz",
        ends=np.cumsum(counts),
        boxes=np.concatenate([t.boxes for t in truth]),
        labels=np.concatenate([t.labels for t in truth]),
    )
    (work / "pixels.part.npy").rename(work / "pixels.npy")
    return len(truth), int(counts.sum())


class TrainSet:
    """The decoded training pictures; `sample` gives one as the network may see it."""

    def __init__(self, work):
        work = Path(work)
        if not (work / "pixels.npy").exists():
            raise ValueError(f"{work}/pixels.npy is missing; run `python -m train prepare` first")
        self.pixels = np.load(work / "pixels.npy", mmap_mode="r")
        stored = np.load(work / "labels.npz")
        starts = np.concatenate(([0], stored["ends"][:-1]))
        self.boxes = [stored["boxes"][a:b] for a, b in zip(starts, stored["ends"])]
        self.labels = [stored["labels"][a:b] for a, b in zip(starts, stored["ends"])]

    def __len__(self):
        return len(self.boxes)

    def sample(self, index, size, rng, mosaic=0.0, empty=0.06):
        """Picture `index` changed at random: bytes [size, size, 3], boxes in pixels, classes. With the chance `empty` it is a part
        of the picture without any litter: streets, walls and traffic on which nothing must be found."""
        chance = rng.random()
        if chance < empty:
            window = self._empty_window(index, rng)
            if window is not None:
                picture = warp(self.pixels[index], window, size, size, rng.random() < 0.5)
                return colours(picture, rng), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
        if chance > 1 - mosaic:
            picture, boxes, labels = self._mosaic(index, size, rng)
        else:
            picture, boxes, labels = self._one(index, size, size, rng, random_window(rng))
        return colours(picture, rng), boxes, labels

    def _one(self, index, width, height, rng, window):
        flip = rng.random() < 0.5
        picture = warp(self.pixels[index], window, width, height, flip)
        boxes, labels = cut(self.boxes[index], self.labels[index], window, flip)
        return picture, boxes * np.array([width, height] * 2, np.float32), labels

    def _mosaic(self, index, size, rng):
        cx, cy = (int(size * rng.uniform(0.35, 0.65)) for _ in range(2))
        picture, boxes, labels = np.empty((size, size, 3), np.uint8), [], []
        others = [index, *rng.integers(0, len(self), 3)]
        for one, (x, y, w, h) in zip(others, ((0, 0, cx, cy), (cx, 0, size - cx, cy), (0, cy, cx, size - cy), (cx, cy, size - cx, size - cy))):
            part, part_boxes, part_labels = self._one(one, w, h, rng, random_window(rng, 0.7, 1.1))
            picture[y : y + h, x : x + w] = part
            boxes.append(part_boxes + np.array([x, y, x, y], np.float32))
            labels.append(part_labels)
        return picture, np.concatenate(boxes), np.concatenate(labels)

    def _empty_window(self, index, rng):
        for _ in range(8):
            side = rng.uniform(0.3, 0.7)
            x, y = rng.uniform(0, 1 - side, 2)
            boxes = self.boxes[index]
            apart = (boxes[:, 0] >= x + side) | (boxes[:, 2] <= x) | (boxes[:, 1] >= y + side) | (boxes[:, 3] <= y)
            if apart.all():
                return x, y, side, side
        return None


def random_window(rng, smallest=0.55, largest=1.5):
    """A part of the picture (or more than the picture) to look at: x, y, width, height as shares of it."""
    side = np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    stretch = np.exp(rng.uniform(-0.2, 0.2))
    w, h = side * stretch, side / stretch
    place = lambda length: rng.uniform(min(0.0, 1 - length), max(0.0, 1 - length))
    return place(w), place(h), w, h


def warp(picture, window, width, height, flip):
    """The window of the picture at the size wanted, grey where it reaches outside."""
    x, y, w, h = window
    rows, columns = picture.shape[:2]
    sx, sy = width / (w * columns), height / (h * rows)
    matrix = np.array([[sx, 0, -x * columns * sx], [0, sy, -y * rows * sy]], np.float64)
    if flip:
        matrix = np.array([[-1, 0, width - 1], [0, 1, 0]], np.float64) @ np.vstack((matrix, (0, 0, 1)))
    how = cv2.INTER_AREA if min(sx, sy) < 0.5 else cv2.INTER_LINEAR
    return cv2.warpAffine(np.ascontiguousarray(picture), matrix, (width, height), flags=how, borderValue=GREY)


def cut(boxes, labels, window, flip):
    """Boxes as shares of the window; those of which too little is left are dropped."""
    if not len(boxes):
        return boxes, labels
    x, y, w, h = window
    moved = (boxes - np.array([x, y, x, y])) / np.array([w, h, w, h])
    if flip:
        moved = np.stack((1 - moved[:, 2], moved[:, 1], 1 - moved[:, 0], moved[:, 3]), 1)
    inside = np.clip(moved, 0, 1)
    area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    kept = area(inside) >= VISIBLE_MIN * area(moved)
    return inside[kept].astype(np.float32), labels[kept]


def colours(picture, rng):
    """Brightness, contrast, gamma and saturation changed; now and then blurred, noisy or grey as cameras make them."""
    gain, shift = rng.uniform(0.7, 1.3), rng.uniform(-24, 24)
    gamma = np.exp(rng.uniform(-0.35, 0.35))
    levels = np.arange(256) / 255
    tints = rng.uniform(0.95, 1.05, 3)
    tables = [np.clip(((levels**gamma) * 255 - 128) * gain * tint + 128 + shift, 0, 255).astype(np.uint8) for tint in tints]
    picture = cv2.LUT(picture, np.stack(tables, -1).reshape(1, 256, 3))
    chance = rng.random()
    saturation = 0.0 if chance < 0.04 else rng.uniform(0.5, 1.4)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    picture = cv2.addWeighted(picture, saturation, grey, 1 - saturation, 0)
    if chance > 0.94:
        picture = cv2.GaussianBlur(picture, (5, 5), rng.uniform(0.6, 1.6))
    elif chance > 0.88:
        noise = rng.normal(0, rng.uniform(3, 12), picture.shape).astype(np.int16)
        picture = np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return picture
