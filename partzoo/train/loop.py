"""The training loop shared by all methods: budget, schedule, checkpoints and log."""

from __future__ import annotations

import csv
import functools
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from partzoo.data.image_sets import Examples
from partzoo.errors import UsageError, WeightsError, require
from partzoo.files import check_version, expand_user, write_aside
from partzoo.models.precision import has_bf16
from partzoo.settings import checked, types_of
from partzoo.system.device import Device, device_of
from partzoo.system.memory import kept_memory
from partzoo.system.ranks import SharedBatch
from partzoo.train.muon import Muon
from partzoo.train.processes import processes, together
from partzoo.weights.tensors import read_metadata, read_tensors, save_tensors, write_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

    from partzoo.train.tasks.base import Task

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model.safetensors"
FORMAT = 1  # version of the checkpoint's format
# accelerate stays on the device of a process's first training.
KEPT = "this process has trained on another device: begin a new process, or leave device= out"
NO_RESUME = "it does not continue this run; train without --resume into another -o"


@dataclass(frozen=True)
class LoopOptions:
    """Options of the training loop: its budget, optimizer, schedule, checkpoints and precision.

    Attributes:
        steps, minutes, epochs: budget, exactly one of them, over all pieces of a resumed run together.
        batch_size: number of images in a step, which several processes share evenly.
        optimizer: Adam with decoupled weight decay, Adam, SGD with Nesterov's momentum of 0.9, or Muon, which makes the
            steps of matrices and kernels orthogonal, as large as Adam's, and leaves other parameters to AdamW.
        lr: highest learning rate.
        betas: decay rates of the moments of Adam, AdamW and Muon.
        weight_decay: weight decay of the parameters that ``decay`` selects.
        decay: ``"matrices"`` selects matrices and kernels, as in DeiT; ``"all"`` selects all parameters.
        warmup: share of the budget during which the rate rises to ``lr``.
        schedule: course of the rate after the warm-up: ``"cosine"`` lets it fall to zero at the end of the budget,
            ``"constant"`` keeps it, and ``"multistep"`` multiplies it by ``factor`` at each of the ``milestones``.
        milestones: shares of the budget, like ``warmup``.
        factor: factor of the rate at a milestone.
        clip_grad: largest norm of the gradient; 0 does not clip.
        seed: random seed of weights, order and sampling.
        checkpoint_minutes: number of minutes between checkpoints.
        log_steps: number of steps between rows of the log.
        channels_last: whether to store kernels and images with their channels last.
        precision: precision of matrix products in the forward pass; ``"auto"`` uses bfloat16 if the machine multiplies
            it natively, otherwise float32.
    """

    steps: int | None = None
    minutes: float | None = None
    epochs: float | None = None
    batch_size: int = 64
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    decay: Literal["matrices", "all"] = "matrices"
    warmup: float = 0.05
    schedule: Literal["cosine", "constant", "multistep"] = "cosine"
    milestones: tuple[float, ...] = ()
    factor: float = 0.2
    clip_grad: float = 1.0
    seed: int = 0
    checkpoint_minutes: float = 5.0
    log_steps: int = 50
    channels_last: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        for name, kind in types_of(LoopOptions).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), kind))
        budget = [value for value in (self.steps, self.minutes, self.epochs) if value is not None]
        if len(budget) != 1:
            raise UsageError("Give the budget either as steps=, as minutes= or as epochs=.")
        if budget[0] <= 0 or self.batch_size <= 0:
            raise UsageError("The budget (steps=, minutes= or epochs=) and batch_size= must be above zero.")
        if not 0 <= self.warmup < 1 or any(not 0 < each < 1 for each in self.milestones):
            raise UsageError(
                f"warmup={self.warmup}, milestones={self.milestones}: shares of the budget must be between 0 and 1."
            )
        if bool(self.milestones) != (self.schedule == "multistep"):
            raise UsageError("Set milestones with schedule='multistep', and with no other schedule.")


@dataclass
class Progress:
    """The state of a run: ``loss`` is the last logged loss, and ``finished`` is true once the budget is spent."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    finished: bool = False


@together()
def fit(
    task: Task,
    images: Examples,
    options: LoopOptions,
    out: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    device: Device = None,
) -> Progress:
    """Train until the budget is spent; SIGINT and SIGTERM stop after the step, with a checkpoint.

    The folder receives ``model.safetensors`` (for :func:`partzoo.load`), ``checkpoint.safetensors`` (from which
    ``resume`` continues), ``log.csv`` and, if tensorboard is installed, its events.

    Args:
        task: task with the model to train. Several processes share each batch, and train as one process would.
        images: training images.
        options: budget and optimizer.
        out: folder of the run.
        resume: whether to continue from the folder's checkpoint, if there is one.
        progress: whether to show a bar with rate and time left.
        device: where the model is trained, see :func:`accelerator_on`.

    Returns:
        The state of the run at the end.

    Raises:
        UsageError: the folder already holds a run and ``resume`` is off, or the batch cannot be shared evenly.
        WeightsError: the checkpoint is damaged or belongs to another model.
        PartzooError: another process has ended.
    """
    shared = processes(device)
    rank, ranks = shared.process_index, shared.num_processes
    if options.batch_size % ranks:
        raise UsageError(f"{ranks} processes cannot share {options.batch_size} images evenly. Set loop.batch_size.")
    out = run_folder(out, fresh=not resume)
    accelerator = accelerator_on(device)
    bf16 = has_bf16(accelerator.device) if options.precision == "auto" else options.precision == "bf16"
    if options.channels_last:
        task.to(memory_format=torch.channels_last)
    optimizer = _optimizer(task, options)
    state, count = Progress(), len(images)
    if resume and (out / CHECKPOINT).exists():
        state = _restore(task, optimizer, out / CHECKPOINT)
    prepared, optimizer = accelerator.prepare(task, optimizer)
    main = accelerator.is_main_process
    # All processes draw the same order and share each batch; a resumed run skips the images that it has seen.
    batches = images.epochs(options.batch_size, options.seed, state.images)
    task.train()
    saved, began = state.seconds, time.monotonic() - state.seconds
    with kept_memory(), _stop_signal() as stopped, _Log(out, main, state) as log, tqdm(
        total=1.0, initial=_done(state, options, count), disable=not (progress and main), unit="run",
        bar_format="{l_bar}{bar}| {elapsed} done, {remaining} left{postfix}",
    ) as bar:  # fmt: skip
        stop = False
        while (done := _done(state, options, count)) < 1 and not stop:
            indices, pixels = images.draw(next(batches)[rank::ranks])
            pixels = pixels.to(accelerator.device, non_blocking=True)
            labels = None if images.labels is None else images.labels[indices].to(accelerator.device)
            # The seed depends only on the step, so a resumed run draws the same as an uninterrupted one.
            drawn = (options.seed * 1_000_003 + state.step) * 1_009
            generator = torch.Generator(accelerator.device).manual_seed(drawn)
            torch.manual_seed(drawn + 1)  # from which layers draw, such as stochastic depth
            for group in optimizer.param_groups:
                group["lr"] = options.lr * rate(done, options) * group["factor"]
            with SharedBatch(rank, ranks), torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16):
                terms = prepared(pixels, labels, done, generator)
            optimizer.zero_grad()
            accelerator.backward(terms["loss"])
            if options.clip_grad:
                accelerator.clip_grad_norm_(task.parameters(), options.clip_grad)
            optimizer.step()
            state.step += 1
            state.images += options.batch_size
            state.seconds, stop = _agreed(accelerator, time.monotonic() - began, bool(stopped))
            if state.step % options.log_steps == 0 or _done(state, options, count) >= 1:
                # Only here, because reading a value waits for the device to finish the step.
                values = _means(accelerator, terms)
                state.loss = values["loss"]
                if not math.isfinite(state.loss):
                    raise UsageError(f"The loss is {state.loss} at step {state.step}. Lower lr={options.lr:g}.")
                log.row(state, group["lr"], values)
                bar.set_postfix_str(f"loss {state.loss:.3f}, {state.images / state.seconds:.0f} images/s")
            bar.update(_done(state, options, count) - bar.n)
            if main and state.seconds - saved >= 60 * options.checkpoint_minutes:
                saved = state.seconds
                _save(task, optimizer, state, out)
    state.finished = _done(state, options, count) >= 1
    if main:
        _save(task, optimizer, state, out)
    task.eval()
    return state


def run_folder(out: str | Path, *, fresh: bool = False) -> Path:
    """Create the folder of a run, if it does not exist.

    Raises:
        UsageError: the folder cannot be created, or already holds a run where a ``fresh`` one is needed.
    """
    out = expand_user(out)
    if fresh and (out / CHECKPOINT).exists():
        raise UsageError(f"{out} already holds a run. Add resume=True, or choose another folder with out=.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out={out} cannot be created: {error.strerror}. Choose another folder.") from error
    return out


def accelerator_on(device: Device) -> Accelerator:
    """Return the accelerator that trains on a device.

    Args:
        device: as for :func:`partzoo.load`; None leaves the choice to accelerate, which gives each process a
            separate GPU where there are several of both.

    Raises:
        UsageError: this machine has no such device, or it cannot be had in this process.
    """
    accelerate = require("accelerate", "train")
    # A loss that is left out leaves parameters without a gradient.
    parallel = accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)
    make = functools.partial(accelerate.Accelerator, kwargs_handlers=[parallel])
    if device is None:
        return make()
    chosen = device_of(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    try:
        found: Accelerator = make(cpu=chosen.type == "cpu")
    except ValueError as error:
        raise UsageError(f"device={str(chosen)!r}: {KEPT}.") from error
    if found.device.type != chosen.type:
        raise UsageError(f"device={str(chosen)!r}: {KEPT}.")
    if found.num_processes > 1 and chosen.index is not None:
        raise UsageError(f"device={str(chosen)!r}: each of several processes has a GPU of its own. Leave device= out.")
    return found


def _agreed(accelerator: Accelerator, seconds: float, stop: bool) -> tuple[float, bool]:
    """Share the first process's clock and any stop request, so that all processes leave the loop at the same step."""
    if accelerator.num_processes == 1:
        return seconds, stop
    clocks = accelerator.gather(torch.tensor([[seconds, stop]], dtype=torch.float32, device=accelerator.device))
    return clocks[0, 0].item(), bool(clocks[:, 1].any())


def _means(accelerator: Accelerator, terms: dict[str, Tensor]) -> dict[str, float]:
    """Return the loss terms of the whole batch, each averaged over the processes."""
    found = accelerator.reduce(torch.stack([term.detach().float() for term in terms.values()]), "mean")
    return dict(zip(terms, found.tolist(), strict=True))


def _done(state: Progress, options: LoopOptions, count: int) -> float:
    """Compute the share of the budget that a run over ``count`` images has spent."""
    if options.steps:
        part = state.step / options.steps
    elif options.epochs:
        part = state.images / (options.epochs * count)
    else:
        part = state.seconds / (60 * (options.minutes or math.inf))
    return min(part, 1.0)


def rate(done: float, options: LoopOptions) -> float:
    """Compute the learning rate as a share of ``options.lr``, once the share ``done`` of the budget, 0..1, is spent."""
    if done < options.warmup:
        return max(done / options.warmup, 1e-3)  # above zero, so that the first step is not wasted
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (done - options.warmup) / (1 - options.warmup)))
    return options.factor ** sum(done >= each for each in options.milestones)


def _optimizer(task: Task, options: LoopOptions) -> torch.optim.Optimizer:
    muon = options.optimizer == "muon"
    members: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim <= 1 or name.endswith(task.UNDECAYED)
            end = vector or (muon and name.removeprefix("model.").startswith(task.ENDS))
            members.setdefault((task.rate_factor(name), vector, end), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "factor": factor,
            "weight_decay": 0.0 if vector and options.decay == "matrices" else options.weight_decay,
        }
        | ({"use_fallback": end} if muon else {})
        # Checkpoints store moments by index, so the order of the groups must not change between runs.
        for (factor, vector, end), parameters in sorted(members.items(), key=lambda member: member[0])
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True)
    if muon:
        return Muon(groups, lr=options.lr, betas=options.betas, nesterov=True)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=options.lr, betas=options.betas, fused=True)


def _save(task: Task, optimizer: torch.optim.Optimizer, state: Progress, out: Path) -> None:
    model = task.model
    write_weights(out / MODEL, model.state_dict(), model.architecture, asdict(model.config))
    tensors = {f"task.{name}": value for name, value in task.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
    about = {"partzoo_format": str(FORMAT), "progress": json.dumps(asdict(state))}
    save_tensors(out / CHECKPOINT, tensors, about)


def _restore(task: Task, optimizer: torch.optim.Optimizer, file: Path) -> Progress:
    try:
        check_version(read_metadata(file, fix=NO_RESUME).get("partzoo_format"), FORMAT, str(file), WeightsError)
        tensors, about = read_tensors(file, fix=NO_RESUME)
        progress = Progress(**json.loads(about["progress"]))
        task.load_state_dict({k.removeprefix("task."): v for k, v in tensors.items() if k.startswith("task.")})
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            f"{file} does not continue this run: {error}. Train with resume=False into another out=."
        ) from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            parameter = parameters[int(index)]
            # A fused optimizer steps through memory linearly, so a moment needs its parameter's memory layout.
            laid = value if value.ndim == 0 else torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            states.setdefault(int(index), {})[name] = laid
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Provide a list that receives the number of the signal that asks the process to stop."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    try:
        previous = [signal.signal(number, lambda number, _: received.append(number)) for number in signals]
    except ValueError:  # signals can only be handled in the main thread
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


class _Log:
    """Writer of the rows of ``log.csv``, and of tensorboard events if it is installed."""

    def __init__(self, out: Path, enabled: bool, state: Progress) -> None:
        self._out, self._enabled, self._step, self._images = out, enabled, state.step, state.images

    def __enter__(self) -> _Log:
        self._writer = None
        if self._enabled:
            self._forget()
            try:
                writer = require("torch.utils.tensorboard", "train").SummaryWriter
                self._writer = writer(str(self._out), purge_step=self._images + 1 if self._images else None)
            except ImportError:
                pass
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def _forget(self) -> None:
        """Delete log rows of steps after the checkpoint, which remain if a run was killed."""
        file = self._out / "log.csv"
        if file.exists():
            head, *rows = file.read_bytes().splitlines(keepends=True)
            kept = [row for row in rows if row.endswith(b"\n") and int(row.partition(b",")[0]) <= self._step]
            with write_aside(file) as opened:
                opened.writelines([head, *kept] if kept else [])

    def row(self, state: Progress, lr: float, values: dict[str, float]) -> None:
        if not self._enabled:
            return
        row = {"step": state.step, "images": state.images, "seconds": round(state.seconds, 1), "lr": lr} | values
        with open(self._out / "log.csv", "a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, value, state.images)
