"""From weights to the file the gateway loads. Owns the ONNX form: one input `data` [1, 3, H, W] float32, one output `output`
[1, N, classes + 32] with scores already sigmoid, weights stored as half floats and cast once when the session opens, class names in the
metadata; refuses to leave a file whose numbers differ from the network's."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from .nanodet import SIDES

OPSET = 13
# Half floats keep eleven bits: more than this apart from the network means a broken file, not rounding.
APART_MAX = 0.03
SMALL = 64


def write(model, labels, width, height, path, half=True):
    """Writes `model` as `path`; returns the file's SHA-256. Raises ValueError when the file does not answer as the network does."""
    if model.classes != len(labels):
        raise ValueError(f"{model.classes} classes but {len(labels)} names")
    model = model.eval().to(memory_format=torch.contiguous_format).float()
    path = Path(path)
    part = path.with_suffix(".part")
    names = {"input_names": ["data"], "output_names": ["output"]}
    torch.onnx.export(model, torch.zeros(1, 3, height, width), str(part), opset_version=OPSET, dynamo=False, **names)
    graph = onnx.load(str(part))
    part.unlink()
    if half:
        halve(graph.graph)
    del graph.metadata_props[:]
    helper.set_model_props(graph, {"labels": ",".join(labels)})
    graph.producer_name, graph.producer_version, graph.doc_string = "gengfu models/train", "", ""
    onnx.checker.check_model(graph)
    content = graph.SerializeToString(deterministic=True)
    apart = difference(model, content, width, height)
    if apart > APART_MAX:
        raise ValueError(f"the file's scores differ from the network's by {apart:.4f}; nothing was written")
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def halve(graph):
    """Stores large weights as half floats, each followed by a cast that the runtime folds away when it opens the file."""
    casts, stored = [], []
    for value in graph.initializer:
        array = numpy_helper.to_array(value)
        if array.dtype != np.float32 or array.size < SMALL:
            stored.append(value)
            continue
        stored.append(numpy_helper.from_array(array.astype(np.float16), value.name + ".half"))
        casts.append(helper.make_node("Cast", [value.name + ".half"], [value.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(stored)
    graph.node.extend(nodes)


def difference(model, content, width, height):
    """Largest difference of a score between network and file, on noise with edges (fixed seed)."""
    rng = np.random.default_rng(1)
    coarse = rng.normal(0, 1, (1, 3, height // 32, width // 32)).repeat(32, 2).repeat(32, 3)
    x = (coarse + rng.normal(0, 0.2, (1, 3, height, width))).astype(np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got = session.run(None, {"data": x})[0]
    with torch.no_grad():
        rows = model(torch.from_numpy(x)).numpy()
    wanted = 1 / (1 + np.exp(-rows[..., :-SIDES]))
    if got.shape != rows.shape:
        raise ValueError(f"the file's output is {got.shape}, the network's {rows.shape}")
    return float(np.abs(got[..., :-SIDES] - wanted).max())
