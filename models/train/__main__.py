"""`python -m train VERB`, run in models/: prepare, train, evaluate, export. Owns the command line; refuses work of its own."""

import argparse
import math
import os
import sys


def options_of(arguments):
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m train", description="Trains and measures the project's own detection models.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data", default="../../shared/data", help="folder with litter/, street/ and models/ (%(default)s)")
    common.add_argument("--work", default="/var/tmp/gengfu-train", help="decoded pictures and checkpoints (%(default)s)")
    verbs.add_parser("prepare", parents=[common], help="decode the training pictures once")

    fit = verbs.add_parser("train", parents=[common], help="begin a run or go on with it")
    fit.add_argument("--run", default="litter", help="name of the run: a folder in --work")
    fit.add_argument("--teacher", help="NanoDet-Plus-m to start from (default: the one in --data)")
    fit.add_argument("--classes", choices=("litter", "nine"), default="litter", help="litter alone, or beside the street classes")
    fit.add_argument("--steps", type=int, default=4000)
    fit.add_argument("--batch", type=int, default=16, help="pictures per step over all workers")
    fit.add_argument("--micro", type=int, default=8, help="pictures a worker computes at once")
    fit.add_argument("--phases", default="256:0.5,320:0.85,416:1", help="picture side : share of the run until which it is used")
    fit.add_argument("--lr", type=float, default=1e-3)
    fit.add_argument("--early-lr", type=float, default=0.3, help="share of the rate for the backbone")
    fit.add_argument("--freeze", type=int, default=0, help="leading parts (stem, stage 1, 2, 3) that do not learn")
    fit.add_argument("--decay", type=float, default=0.05)
    fit.add_argument("--average", type=float, default=0.998, help="inertia of the averaged weights")
    fit.add_argument("--warm", type=int, default=100, help="steps of rising rate")
    fit.add_argument("--mosaic", type=float, default=0.25)
    fit.add_argument("--plain-end", type=float, default=0.25, help="last share of the run without mosaics")
    fit.add_argument("--keep", type=float, default=1.0, help="weight of the teacher's classes (nine only)")
    fit.add_argument("--seed", type=int, default=1)
    fit.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    fit.add_argument("--threads", type=int, default=os.cpu_count(), help="threads, with one worker")
    fit.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    fit.add_argument("--checkpoint-s", type=float, default=300)
    fit.add_argument("--evaluate-steps", type=int, default=500)

    measure = verbs.add_parser("evaluate", parents=[common], help="AP and AP50 per class of ONNX files")
    measure.add_argument("models", nargs="+")
    measure.add_argument("--set", choices=("litter", "street"), required=True)
    measure.add_argument("--nms", choices=("class", "gateway"), default="class", help="per class as published numbers have it, or the gateway's rule")
    measure.add_argument("--nms-iou", type=float, default=0.6)
    measure.add_argument("--false-alarms", action="store_true", help="also count litter found on the street pictures")

    out = verbs.add_parser("export", parents=[common], help="write the ONNX file of a run, or cut a teacher down to the street classes")
    out.add_argument("--run", default="litter")
    out.add_argument("--street", metavar="TEACHER", help="write the street classes of this ONNX file instead of a run")
    out.add_argument("--width", type=int, default=416)
    out.add_argument("--height", type=int, default=416)
    out.add_argument("--float32", action="store_true", help="store weights as 32-bit floats")
    out.add_argument("output")
    return parser.parse_args(arguments)


def teacher_of(data):
    return os.path.join(data, "models", "nanodet_plus_m_coco_416x416.onnx")


def evaluate(options):
    from . import score

    for path in options.models:
        result = score.evaluate(path, options.set, options.data, options.nms, options.nms_iou)
        print(f"{path} on {options.set}/, doubles by {options.nms} at IoU {options.nms_iou}")
        for name, (ap, ap50) in [*result.items(), ("mean", score.means(result))]:
            print(f"  {name:12} AP {'-' if math.isnan(ap) else f'{ap:.4f}'}  AP50 {'-' if math.isnan(ap50) else f'{ap50:.4f}'}")
        if options.false_alarms:
            thresholds = (0.3, 0.4, 0.5, 0.6)
            for name, counts in score.false_alarms(path, options.data, thresholds).items():
                print(f"  {name:12} per street picture: " + ", ".join(f"{c:.3f} at {t}" for c, t in zip(counts, thresholds)))


def export(options):
    import torch

    from . import data, export
    from .nanodet import SIDES, NanoDet, from_onnx

    if options.street:
        labels = data.STREET
        model = from_onnx(options.street, [data.COCO_COLUMN[c] for c in labels])
    else:
        state = torch.load(os.path.join(options.work, options.run, "last.pt"), weights_only=True)
        labels = data.LITTER if state["options"]["classes"] == "litter" else data.STREET + data.LITTER
        model = NanoDet(state["average"]["heads.0.predict.weight"].shape[0] - SIDES)
        model.load_state_dict(state["average"])
        print(f"step {state['step']} of {state['options']['steps']}")
    sha = export.write(model, labels, options.width, options.height, options.output, not options.float32)
    print(f"{options.output} {os.path.getsize(options.output)} bytes\nsha256 = \"{sha}\"")


def main(arguments):
    options = options_of(arguments)
    try:
        if options.verb == "prepare":
            from . import data

            print("%d pictures with %d boxes decoded" % data.prepare(options.data, options.work))
        elif options.verb == "train":
            from . import fit

            settings = {k: v for k, v in vars(options).items() if k != "verb"}
            settings["teacher"] = options.teacher or teacher_of(options.data)
            fit.train(settings)
        elif options.verb == "evaluate":
            evaluate(options)
        else:
            export(options)
    except (ValueError, OSError) as error:
        sys.exit(f"train {options.verb}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
