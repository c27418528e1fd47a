"""What the usual recorder does for one camera, to be measured beside ours: ffmpeg decodes every picture and hands on five a second as raw
video; Python runs the detector on each. Prints one line of JSON: processor seconds for a second of stream (the model's loading not
counted), pictures, and the detector's own share.

    peer.py CLIP MODEL SECONDS
"""

import json
import resource
import subprocess
import sys
import time

import numpy
import onnxruntime

SIDE = 416


def cpu() -> float:
    """Processor time of this process and of its children that have ended, s."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def main() -> None:
    clip, model, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(None, {name: numpy.zeros((1, 3, SIDE, SIDE), numpy.float32)})
    begun = cpu()
    decoder = subprocess.Popen(
        ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-t", str(seconds), "-i", clip, "-an"]
        + ["-vf", f"fps=5,scale={SIDE}:234,pad={SIDE}:{SIDE}:0:0:0x727272", "-pix_fmt", "bgr24", "-f", "rawvideo", "-"],
        stdout=subprocess.PIPE,
    )
    pictures, detecting = 0, 0.0
    while len(raw := decoder.stdout.read(SIDE * SIDE * 3)) == SIDE * SIDE * 3:
        picture = numpy.frombuffer(raw, numpy.uint8).reshape(SIDE, SIDE, 3)
        tensor = numpy.ascontiguousarray(picture.transpose(2, 0, 1)[None], numpy.float32)
        before = time.process_time()
        session.run(None, {name: tensor})
        detecting += time.process_time() - before
        pictures += 1
    if decoder.wait() != 0 or pictures == 0:
        sys.exit(f"ffmpeg gave {pictures} pictures and ended with {decoder.returncode}")
    print(json.dumps({"core": (cpu() - begun) / seconds, "pictures": pictures, "detector_core": detecting / seconds}))


if __name__ == "__main__":
    main()
