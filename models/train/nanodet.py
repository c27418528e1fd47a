"""The network: NanoDet-Plus-m (ShuffleNetV2 1.0x, ghost feature pyramid, one light head per stride) in the form in which its weights
were published for inference, every batch normalisation folded into its convolution. Owns the architecture and the reading of
weights from an ONNX file of it; refuses files whose convolutions are not exactly these. Sources: RangiLyu, NanoDet-Plus (2021,
Apache-2.0); Ma et al., arXiv 1807.11164; Han et al., arXiv 1911.11907. Written from the published graph, no code taken over.

Pictures are [B, 3, H, W], BGR, normalised by `MEAN` and `DEVIATION`, H and W multiples of 32. The output is [B, N, classes + 32] with
N the sum of the grids of `STRIDES`, row after row: class logits (scores when exporting), then four sides x eight bins."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

STRIDES = (8, 16, 32, 64)
BINS = 8
SIDES = 4 * BINS
MEAN = (103.53, 116.28, 123.675)
DEVIATION = (57.375, 57.12, 58.395)
SLOPE = 0.1
WIDTH = 96
# Folded normalisation leaves no statistics to adapt, so new class rows start small and sure of "nothing here" (p = 0.01).
NEW_ROW_DEVIATION = 0.01
NEW_ROW_BIAS = -4.595


class Spread(nn.Conv2d):
    """A depthwise convolution with a large kernel or a stride. Its gradient is many times slower in bfloat16 than in 32-bit floats on
    CPUs (oneDNN 3.5), so it computes in the latter whatever the rest does."""

    def forward(self, x):
        if x.dtype != torch.bfloat16:
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).bfloat16()


def conv(ins, outs, kernel, stride=1, groups=1, active=True):
    """One convolution with bias, padded to keep its size, with or without LeakyReLU."""
    kind = Spread if groups > 1 and (kernel > 3 or stride > 1) else nn.Conv2d
    layers = [kind(ins, outs, kernel, stride, kernel // 2, groups=groups)]
    if active:
        layers.append(nn.LeakyReLU(SLOPE, inplace=True))
    return nn.Sequential(*layers)


def separable(ins, outs, kernel, stride=1, active=True):
    """A depthwise convolution followed by a pointwise one."""
    return nn.Sequential(conv(ins, ins, kernel, stride, ins, active), conv(ins, outs, 1, active=active))


def interleave(a, b):
    """Concatenates along the channels and shuffles the two groups: a0, b0, a1, b1 ..."""
    if torch.onnx.is_in_onnx_export():
        n, c, h, w = a.shape
        return torch.cat((a, b), 1).view(n, 2, c, h, w).transpose(1, 2).reshape(n, 2 * c, h, w)
    # In channels-last memory this is one copy instead of three.
    pair = torch.stack((a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)), -1)
    return pair.flatten(3).permute(0, 3, 1, 2)


class Unit(nn.Module):
    """ShuffleNetV2's basic unit (stride 1) and its down-sampling unit (stride 2)."""

    def __init__(self, ins, outs, stride):
        super().__init__()
        half = outs // 2
        self.stride = stride
        if stride == 2:
            self.side = nn.Sequential(conv(ins, ins, 3, 2, ins, False), conv(ins, half, 1))
        self.main = nn.Sequential(
            conv(ins if stride == 2 else half, half, 1), conv(half, half, 3, stride, half, False), conv(half, half, 1)
        )

    def forward(self, x):
        if self.stride == 2:
            return interleave(self.side(x), self.main(x))
        kept, changed = x.chunk(2, 1)
        return interleave(kept, self.main(changed))


class Ghost(nn.Module):
    """Half of the channels by a pointwise convolution, the other half cheaply from these."""

    def __init__(self, ins, outs, active):
        super().__init__()
        self.primary = conv(ins, outs // 2, 1, active=active)
        self.cheap = conv(outs // 2, outs // 2, 3, groups=outs // 2, active=active)

    def forward(self, x):
        x = self.primary(x)
        return torch.cat((x, self.cheap(x)), 1)


class GhostBlock(nn.Module):
    """Ghost bottleneck with a separable shortcut; merges two levels given side by side."""

    def __init__(self):
        super().__init__()
        self.ghosts = nn.Sequential(Ghost(2 * WIDTH, WIDTH, True), Ghost(WIDTH, WIDTH, False))
        self.shortcut = separable(2 * WIDTH, WIDTH, 5, active=False)

    def forward(self, upper, lower):
        x = torch.cat((upper, lower), 1)
        return self.ghosts(x) + self.shortcut(x)


class Head(nn.Module):
    """Two separable convolutions and the prediction of one stride."""

    def __init__(self, classes):
        super().__init__()
        self.tower = nn.Sequential(separable(WIDTH, WIDTH, 5), separable(WIDTH, WIDTH, 5))
        self.predict = nn.Conv2d(WIDTH, classes + SIDES, 1)

    def forward(self, x):
        return self.predict(self.tower(x))


class NanoDet(nn.Module):
    """The whole network. Modules are registered in the order in which the published graph computes them."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.stem = conv(3, 24, 3, 2)
        stages, ins = [], 24
        for outs, units in ((116, 4), (232, 8), (464, 4)):
            stages.append(nn.Sequential(Unit(ins, outs, 2), *(Unit(outs, outs, 1) for _ in range(units - 1))))
            ins = outs
        self.stages = nn.ModuleList(stages)
        self.reduce = nn.ModuleList(conv(ins, WIDTH, 1) for ins in (116, 232, 464))
        self.down_blocks = nn.ModuleList((GhostBlock(), GhostBlock()))
        ups = []
        for _ in range(2):
            ups.extend((separable(WIDTH, WIDTH, 5, 2), GhostBlock()))
        self.up_blocks = nn.ModuleList(ups)
        self.extra = nn.ModuleList((separable(WIDTH, WIDTH, 5, 2), separable(WIDTH, WIDTH, 5, 2)))
        self.heads = nn.ModuleList(Head(classes) for _ in STRIDES)
        # Number of leading parts (stem, stage 1, ...) that do not learn.
        self.frozen = 0

    def early(self, x):
        """The picture after each stage; frozen parts without a gradient."""
        parts = [nn.Sequential(self.stem, nn.MaxPool2d(3, 2, 1)), *self.stages]
        levels = []
        for index, part in enumerate(parts):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= self.frozen):
                x = part(x)
            levels.append(x)
        return levels[1:]

    def forward(self, x):
        c8, c16, c32 = (reduce(level) for reduce, level in zip(self.reduce, self.early(x)))
        up = lambda level: F.interpolate(level, scale_factor=2.0, mode="bilinear", align_corners=False)
        t16 = self.down_blocks[0](up(c32), c16)
        p8 = self.down_blocks[1](up(t16), c8)
        p16 = self.up_blocks[1](self.up_blocks[0](p8), t16)
        p32 = self.up_blocks[3](self.up_blocks[2](p16), c32)
        p64 = self.extra[0](c32) + self.extra[1](p32)
        rows = [head(level).flatten(2) for head, level in zip(self.heads, (p8, p16, p32, p64))]
        if torch.onnx.is_in_onnx_export():
            rows = [torch.cat((r[:, : self.classes].sigmoid(), r[:, self.classes :]), 1) for r in rows]
        return torch.cat(rows, 2).transpose(1, 2)

    def freeze(self, parts):
        """Stops the first `parts` of stem, stage 1, stage 2, stage 3 from learning."""
        self.frozen = parts
        for index, part in enumerate((self.stem, *self.stages)):
            part.requires_grad_(index >= parts)


def read_onnx(path):
    """The (weight, bias) pairs of an ONNX file's convolutions, in the graph's order."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    values = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    for node in graph.node:
        # Weights stored as half floats are cast where they are used.
        if node.op_type == "Cast" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    convs = [n for n in graph.node if n.op_type == "Conv"]
    return [(values[n.input[1]].astype(np.float32), values[n.input[2]].astype(np.float32)) for n in convs]


def from_onnx(path, rows=None, new_rows=0, seed=0):
    """The network with the weights of `path`. `rows` chooses which of the file's classes stay (None: all) and `new_rows`
    classes are added after them with weights of their own. Raises ValueError when the file holds another network."""
    pairs = read_onnx(path)
    stored = pairs[-1][0].shape[0] - SIDES
    rows = list(range(stored)) if rows is None else list(rows)
    model = NanoDet(len(rows) + new_rows)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    if len(convs) != len(pairs):
        raise ValueError(f"{path} has {len(pairs)} convolutions, NanoDet-Plus-m has {len(convs)}; give a NanoDet-Plus-m file")
    predictors = {id(head.predict) for head in model.heads}
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for index, (layer, (weight, bias)) in enumerate(zip(convs, pairs)):
            if id(layer) in predictors:
                fresh = generator.normal(0, NEW_ROW_DEVIATION, (new_rows, *weight.shape[1:])).astype(np.float32)
                weight = np.concatenate((weight[rows], fresh, weight[stored:]))
                bias = np.concatenate((bias[rows], np.full(new_rows, NEW_ROW_BIAS, np.float32), bias[stored:]))
            if tuple(layer.weight.shape) != weight.shape:
                raise ValueError(f"{path}: convolution {index} is {weight.shape}, expected {tuple(layer.weight.shape)}")
            layer.weight.copy_(torch.from_numpy(weight.copy()))
            layer.bias.copy_(torch.from_numpy(bias.copy()))
    return model


def grid(height, width):
    """The cells of a picture: points [N, 2] in pixels (x, y) and strides [N], in the order of the output's rows."""
    points, strides = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[0 : -(-height // stride), 0 : -(-width // stride)]
        points.append(np.stack((xs, ys), -1).reshape(-1, 2) * stride)
        strides.append(np.full(xs.size, stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(strides).astype(np.float32)
