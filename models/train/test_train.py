"""What the pipeline promises, checked without pictures or downloaded weights: decoding equals the gateway's (same numbers as the tests in
gateway/vision), labels move with pixels, the losses teach, a file answers as its network."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from . import data, export, fit, loss, score
from .nanodet import NanoDet, from_onnx, grid


class Decoding(unittest.TestCase):
    def test_a_nanodet_row_gives_the_box_the_gateway_gives(self):
        rows = np.full((3598, 112), -10.0, np.float32)
        rows[:, :80] = 0
        row = 52 * 10 + 20
        rows[row, 2] = 0.6
        rows[row, 80:] = -50
        for side, at in enumerate((1, 2, 3, 4)):
            rows[row, 80 + side * 8 + at] = 50
        boxes, scores, labels = score.nanodet_boxes(rows, 416, 416, 0.3)
        wanted = np.array([160 - 8, 80 - 16, 160 + 24, 80 + 32]) / 416
        self.assertEqual(labels.tolist(), [2])
        np.testing.assert_allclose(boxes[0], wanted, atol=1e-6)

    def test_a_yolox_row_gives_the_box_the_gateway_gives(self):
        rows = np.zeros((3549, 85), np.float32)
        row = 52 * 52 + 26 + 2
        rows[row, :5] = [0.5, 0.25, np.log(2), np.log(4), 0.9]
        rows[row, 5 + 7] = 0.8
        boxes, scores, labels = score.yolox_boxes(rows, 416, 416, 0.3, None, (416, 312))
        self.assertAlmostEqual(float(scores[0]), 0.72, places=5)
        np.testing.assert_allclose(boxes[0], [24 / 416, 0, 56 / 416, 52 / 312], atol=1e-6)

    def test_of_nested_vehicles_on_the_same_ground_the_tight_one_stays(self):
        kiosk, car = [0.42, 0.22, 0.58, 0.59], [0.425, 0.42, 0.525, 0.58]
        both = np.array([kiosk, car]), np.array([0.55, 0.5]), np.array([2, 0])
        boxes, _, labels = score.suppress(*both, data.STREET, "gateway", 0.45)
        self.assertEqual(labels.tolist(), [0])
        self.assertEqual(len(score.suppress(*both, data.STREET, "class", 0.45)[2]), 2)

    def test_perfect_answers_score_one_and_none_score_zero(self):
        box = np.array([[0.1, 0.1, 0.4, 0.5]], np.float32)
        truth = [data.Truth(Path("a"), box, np.array([1]), np.array([False]))]
        right = score.average_precision(truth, {0: (box, np.array([0.9]), np.array([1]))}, data.LITTER)
        self.assertAlmostEqual(right["garbage_bin"][1], 1.0)
        wrong = score.average_precision(truth, {0: (box, np.array([0.9]), np.array([2]))}, data.LITTER)
        self.assertEqual(wrong["garbage_bin"][1], 0.0)


class Changing(unittest.TestCase):
    def test_boxes_follow_their_pixels(self):
        picture = np.zeros((416, 416, 3), np.uint8)
        picture[100:180, 200:300] = 255
        box = np.array([[200, 100, 300, 180]], np.float32) / 416
        rng = np.random.default_rng(3)
        for trial in range(50):
            window, flip = data.random_window(rng), bool(trial % 2)
            out = data.warp(picture, window, 256, 256, flip)
            moved, kept = data.cut(box, np.array([0]), window, flip)
            ys, xs = np.nonzero(out[..., 0] > 200)
            if not len(kept):
                continue
            seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            np.testing.assert_allclose(moved[0] * 256, seen, atol=2.5, err_msg=f"trial {trial}")

    def test_a_bad_label_line_is_named(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.txt"
            path.write_text("0 0.5 0.5 0.2 0.2\n7 0.5 0.5 0.2 0.2\n")
            with self.assertRaisesRegex(ValueError, r"x\.txt:2: class 7 is unknown"):
                data.read_yolo(path)


class Learning(unittest.TestCase):
    def test_every_box_with_a_cell_in_it_gets_one_and_cells_lie_inside(self):
        points, strides = (torch.from_numpy(a) for a in grid(128, 128))
        torch.manual_seed(5)
        logits, bins = torch.randn(len(points), 3), torch.randn(len(points), 32)
        truth = torch.tensor([[10.0, 10, 60, 60], [50, 50, 120, 126], [90, 2, 103, 14]])
        boxes = loss.boxes_of(bins, points, strides)
        cells, which, _ = loss.assign(logits, boxes, points, strides, truth, torch.tensor([0, 1, 2]))
        self.assertEqual(set(which.tolist()), {0, 1, 2})
        self.assertEqual(len(set(cells.tolist())), len(cells))
        inside = (points[cells] > truth[which][:, :2]) & (points[cells] < truth[which][:, 2:])
        self.assertTrue(inside.all())

    def test_a_small_network_learns_one_picture(self):
        torch.manual_seed(7)
        model = NanoDet(2)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        picture = torch.randn(1, 3, 64, 64)
        points, strides = (torch.from_numpy(a) for a in grid(64, 64))
        note = [(torch.tensor([[8.0, 8, 40, 48]]), torch.tensor([1]))]
        values = []
        for _ in range(60):
            value = loss.detection_loss(model(picture), points, strides, note)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(value.item())
        self.assertLess(np.mean(values[-5:]), 0.5 * np.mean(values[:5]), values)

    def test_a_student_equal_to_its_teacher_loses_nothing(self):
        rows = torch.randn(2, 85, 6 + 3 + 32, generator=torch.manual_seed(1))
        taught = torch.cat((rows[..., :6], rows[..., 9:]), -1)
        self.assertAlmostEqual(loss.keeping_loss(rows, taught, 6).item(), 0.0, delta=1e-5)
        self.assertGreater(loss.keeping_loss(rows + torch.randn(rows.shape), taught, 6).item(), 0.5)

    def test_the_rate_rises_and_falls(self):
        rates = [fit.rate(step, 100, 10) for step in range(101)]
        self.assertEqual(max(rates), rates[10])
        self.assertAlmostEqual(rates[100], 0.02)


class Exporting(unittest.TestCase):
    def test_a_file_answers_as_its_network_and_can_be_read_back(self):
        torch.manual_seed(2)
        model = NanoDet(3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.onnx"
            export.write(model, data.LITTER, 128, 96, path)
            self.assertLess(path.stat().st_size, 3_000_000)
            detector = score.OnnxModel(path, data.LITTER)
            self.assertEqual((detector.width, detector.height), (128, 96))
            again = from_onnx(str(path))
            first, second = (m.state_dict()["stem.0.weight"] for m in (model, again))
            torch.testing.assert_close(first, second, atol=1e-3, rtol=1e-3)

    def test_names_must_fit_the_classes(self):
        with self.assertRaisesRegex(ValueError, "2 classes but 3 names"):
            export.write(NanoDet(2), data.LITTER, 128, 96, "unused.onnx")


if __name__ == "__main__":
    unittest.main()
