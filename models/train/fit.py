"""The training run. Owns schedule, optimiser, averaged weights, checkpoints and the log; refuses to overwrite a run with other
options than it was begun with. Works on CPUs: every worker is one process with one thread on its own share of each batch, gradients are
averaged between them, so that a core taken away for a while delays but never breaks a step. Killing and stopping are harmless: the run
goes on from its last checkpoint, and all random choices follow from seed and step."""

import datetime
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import distributed as dist
from torch import multiprocessing

from . import data, loss, score
from .nanodet import DEVIATION, MEAN, SIDES, from_onnx, grid

CLIP = 20.0
# Options that may differ when a run goes on: everything else would make it another run.
MAY_CHANGE = {"steps", "workers", "precision", "checkpoint_s", "evaluate_steps", "data", "micro"}


def phases(text):
    """`256:0.5,320:0.85,416:1` as a list of (picture side, share of the run up to which it is used)."""
    parts = [part.split(":") for part in text.split(",")]
    found = [(int(side), float(share)) for side, share in parts]
    if any(side % 32 for side, _ in found) or [s for _, s in found] != sorted(s for _, s in found) or found[-1][1] != 1:
        raise ValueError(f"phases {text!r}: sides must be multiples of 32 and shares rise to 1, as in 256:0.5,416:1")
    return found


def rate(step, steps, warm):
    """Share of the full learning rate: linear warm-up, then half a cosine down to 2 per cent."""
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))


def normalised(pictures):
    """Bytes [B, H, W, 3] to the network's input."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return ((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)).contiguous(
        memory_format=torch.channels_last
    )


class Run:
    """One worker's view of a run."""

    def __init__(self, rank, options):
        self.rank, self.options = rank, options
        self.folder = Path(options["work"]) / options["run"]
        self.set = data.TrainSet(options["work"])
        self.kept = len(data.STREET) if options["classes"] == "nine" else 0
        columns = [data.COCO_COLUMN[c] for c in data.STREET] if self.kept else []
        self.model = from_onnx(options["teacher"], columns, len(data.LITTER), options["seed"])
        self.model.freeze(options["freeze"])
        self.model.to(memory_format=torch.channels_last)
        self.teacher = from_onnx(options["teacher"], columns).to(memory_format=torch.channels_last) if self.kept else None
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = self._optimiser()
        self.step, self.losses, self.grids = 0, [], {}
        self.order = (None, None)
        if (self.folder / "last.pt").exists():
            self._load()

    def _optimiser(self):
        o = self.options
        early = {id(p) for part in (self.model.stem, self.model.stages) for p in part.parameters()}
        groups = {}
        for p in self.learning:
            key = (o["lr"] * (o["early_lr"] if id(p) in early else 1), 0.0 if p.dim() == 1 else o["decay"])
            groups.setdefault(key, []).append(p)
        made = [{"params": v, "lr": lr, "full": lr, "weight_decay": decay} for (lr, decay), v in groups.items()]
        return torch.optim.AdamW(made, betas=(0.9, 0.99))

    def _load(self):
        state = torch.load(self.folder / "last.pt", weights_only=True)
        for key, value in state["options"].items():
            if key not in MAY_CHANGE and self.options.get(key) != value:
                raise ValueError(f"run {self.folder.name} was begun with {key} = {value}; use the same or another --run")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.step = state["average"], state["step"]

    def save(self):
        """Writes the checkpoint, whole or not at all."""
        state = {"model": self.model.state_dict(), "average": self.average, "optimiser": self.optimiser.state_dict()}
        torch.save({**state, "step": self.step, "options": self.options}, self.folder / "part.pt")
        os.replace(self.folder / "part.pt", self.folder / "last.pt")

    def size(self):
        """Side of the pictures at this step."""
        share = self.step / self.options["steps"]
        return next((side for side, until in phases(self.options["phases"]) if share < until))

    def batch(self, part, rng, size):
        """`micro` pictures of this step's batch for this worker."""
        o, pictures, notes = self.options, [], []
        each = o["batch"] // o["workers"]
        last = self.step >= (1 - o["plain_end"]) * o["steps"]
        for place in range(part, min(part + o["micro"], each)):
            number = self.step * o["batch"] + self.rank * each + place
            epoch, position = divmod(number, len(self.set))
            if self.order[0] != epoch:
                self.order = (epoch, np.random.default_rng([o["seed"], epoch]).permutation(len(self.set)))
            mosaic = 0.0 if last else o["mosaic"]
            picture, boxes, labels = self.set.sample(self.order[1][position], size, rng, mosaic)
            pictures.append(picture)
            notes.append((torch.from_numpy(boxes), torch.from_numpy(labels)))
        return normalised(np.stack(pictures)), notes

    def one_step(self):
        """One batch: gradients of this worker's share, averaged over the workers, one step of the optimiser, averaged weights."""
        o, size = self.options, self.size()
        if size not in self.grids:
            self.grids[size] = [torch.from_numpy(a) for a in grid(size, size)]
        points, strides = self.grids[size]
        rng = np.random.default_rng([o["seed"], self.step, self.rank])
        parts = range(0, o["batch"] // o["workers"], o["micro"])
        total = 0.0
        for part in parts:
            pictures, notes = self.batch(part, rng, size)
            with torch.autocast("cpu", torch.bfloat16, enabled=o["precision"] == "bf16"):
                rows = self.model(pictures)
            value = loss.detection_loss(rows.float(), points, strides, notes, self.kept)
            if self.teacher is not None:
                with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=o["precision"] == "bf16"):
                    taught = self.teacher(pictures)
                value = value + o["keep"] * loss.keeping_loss(rows.float(), taught.float(), self.kept)
            (value / len(parts)).backward()
            total += value.item() / len(parts)
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.learning, CLIP)
        factor = rate(self.step, o["steps"], o["warm"])
        for group in self.optimiser.param_groups:
            group["lr"] = group["full"] * factor
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        hold = min(o["average"], (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - hold)
        self.losses.append(total)

    def _share_gradients(self):
        if self.options["workers"] == 1:
            return
        flat = torch.cat([p.grad.reshape(-1) for p in self.learning])
        dist.all_reduce(flat)
        flat /= self.options["workers"]
        at = 0
        for p in self.learning:
            p.grad.copy_(flat[at : at + p.numel()].view_as(p))
            at += p.numel()

    def evaluate(self, size):
        """AP and AP50 of the averaged weights on the validation folder, the pictures shared among the workers."""
        truth = data.litter_truth(self.options["data"])
        current = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        found = {}
        with torch.no_grad():
            for index in range(self.rank, len(truth), self.options["workers"]):
                picture = score.scaled(score.read(truth[index].path), size, size)
                rows = self.model(normalised(picture[None]))[0]
                classes = rows.shape[1] - SIDES
                rows = torch.cat((rows[:, self.kept : classes].sigmoid(), rows[:, classes:]), 1).numpy()
                boxes, scores, labels = score.nanodet_boxes(rows, size, size, score.SCORE_MIN)
                found[index] = score.suppress(boxes, scores, labels, data.LITTER, "class")
        self.model.load_state_dict(current)
        if self.options["workers"] > 1:
            everyone = [None] * self.options["workers"]
            dist.all_gather_object(everyone, found)
            found = {k: v for one in everyone for k, v in one.items()}
        return score.average_precision(truth, found, data.LITTER) if self.rank == 0 else None


def worker(rank, options, meeting):
    """A worker's life: from the last checkpoint to the last step."""
    torch.set_num_threads(1 if options["workers"] > 1 else options["threads"])
    if options["workers"] > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        # A stopped run may wait for days: only its being killed ends it.
        wait = datetime.timedelta(days=7)
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options["workers"], timeout=wait)
    torch.manual_seed(options["seed"])
    run = Run(rank, options)
    log = (run.folder / "log").open("a", buffering=1) if rank == 0 else None
    say = lambda text: log and log.write(f"{datetime.datetime.now(datetime.timezone.utc):%H:%M:%S} {text}\n")
    say(f"from step {run.step}: {json.dumps(options)}")
    saved_at, told_at, told_step = time.monotonic(), time.monotonic(), run.step
    while run.step < options["steps"]:
        size = run.size()
        run.one_step()
        now = time.monotonic()
        if run.step % 25 == 0:
            speed = (run.step - told_step) * options["batch"] / (now - told_at)
            say(f"step {run.step} epoch {run.step * options['batch'] / len(run.set):.2f} side {size} loss {np.mean(run.losses):.3f} {speed:.1f} pictures/s")
            run.losses, told_at, told_step = [], now, run.step
        if rank == 0 and now - saved_at > options["checkpoint_s"]:
            run.save()
            saved_at = now
        if run.step % options["evaluate_steps"] == 0 or run.step == options["steps"]:
            result = run.evaluate(size)
            say(result and f"step {run.step} valid at {size}: {score.line(result)}")
    if rank == 0:
        run.save()
    say("done")


def train(options):
    """Runs or goes on with a run; returns when it has reached its last step. Raises ValueError for options that do not fit."""
    phases(options["phases"])
    if options["batch"] % options["workers"]:
        raise ValueError("the batch must be a multiple of the number of workers")
    folder = Path(options["work"]) / options["run"]
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting-{os.getpid()}"
    try:
        if options["workers"] == 1:
            worker(0, options, meeting)
        else:
            multiprocessing.spawn(worker, (options, meeting), options["workers"])
    finally:
        meeting.unlink(missing_ok=True)
