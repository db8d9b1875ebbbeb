"""The training loop shared by all methods: budget, schedule, checkpoints and log."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import math
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from partzoo.data.image_sets import Examples
from partzoo.errors import UsageError, WeightsError, require
from partzoo.files import (
    check_version,
    create_folder,
    expand_user,
    parse_json,
    path_aside,
    reading,
    sync,
    write_if_changed,
)
from partzoo.limits import check_seed
from partzoo.locks import locked
from partzoo.models.precision import has_bf16
from partzoo.settings import checked, types_of
from partzoo.system.device import Device, device_of
from partzoo.system.memory import kept_memory
from partzoo.system.ranks import SharedBatch
from partzoo.train.muon import Muon
from partzoo.train.processes import processes, together
from partzoo.train.sharding import like, shard, unsharded, whole
from partzoo.weights.replacing import link_or_copy
from partzoo.weights.tensors import read_metadata, read_tensors, save_tensors, write_weights

if TYPE_CHECKING:
    from accelerate import Accelerator

    from partzoo.models.base import Model
    from partzoo.train.tasks.base import Task

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"  # the checkpoint before, which is kept until the run is finished
MODEL = "model.safetensors"
LOG, LOG_BEGIN = "log.csv", b"step,images,"
FORMAT = 1  # version of the checkpoint's format
# accelerate stays on the device of a process's first training.
KEPT = "this process has trained on another device: begin a new process, or leave device= out"
TASK, OPTIMIZER = "task.", "optimizer."  # beginnings of the names of a checkpoint's tensors
NO_SHARDS = "shard=True is not possible for {!r}. Leave it out."
NO_RESUME = "it does not continue this run; train with resume=False into another out="


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
        shard: whether several processes share the parameters, gradients and moments (FSDP) instead of each holding all
            of them, for models that would not fit otherwise.
        resident: whether to keep the images on the device, as uint8, if they are in memory. On a GPU, images whose
            foreground is predicted get it there.
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
    shard: bool = False
    resident: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        for name, kind in types_of(LoopOptions).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), kind))
        budget = [value for value in (self.steps, self.minutes, self.epochs) if value is not None]
        if len(budget) != 1:
            raise UsageError("Give the budget either as steps=, as minutes= or as epochs=.")
        if budget[0] <= 0 or self.batch_size <= 0:
            raise UsageError("The budget (steps=, minutes= or epochs=) and batch_size= must be above zero.")
        check_seed(self.seed)
        for name in ("lr", "weight_decay", "clip_grad", "factor", "checkpoint_minutes"):
            value = getattr(self, name)
            if not value >= 0 or (math.isinf(value) and name != "clip_grad"):  # an infinite norm measures alone
                raise UsageError(f"{name}={value} must be at least 0, and finite.")
        if self.shard and (self.optimizer == "muon" or self.channels_last):
            raise UsageError("shard=True needs another optimizer than 'muon', and channels_last=False.")
        if self.log_steps < 1:
            raise UsageError(f"log_steps={self.log_steps} must be at least 1.")
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
    record: Callable[[], None] | None = None,
    device: Device = None,
) -> Progress:
    """Train until the budget is spent; SIGINT and SIGTERM stop after the step, with a checkpoint.

    The third such signal ends the process at once; the last checkpoint stays whole. A checkpoint that cannot be
    written, on a full disk for example, gives a warning and is tried again at the next one.

    The folder receives ``model.safetensors`` (for :func:`partzoo.load`), ``checkpoint.safetensors`` (from which
    ``resume`` continues), ``log.csv`` and, if tensorboard is installed, its events.

    Args:
        task: task with the model to train. Several processes share each batch, and train as one process would.
        images: training images.
        options: budget and optimizer.
        out: folder of the run.
        resume: whether to continue from the folder's checkpoint, if there is one.
        progress: whether to show a bar with rate and time left.
        record: function that writes the run's settings to the folder. It is called before the first step of a new run,
            and with each checkpoint, so that the settings on disk are those of the checkpoint.
        device: where the model is trained, see :func:`accelerator_on`.

    Returns:
        The state of the run at the end.

    Raises:
        UsageError: the folder already holds a run and ``resume`` is off, the batch cannot be shared evenly, or the loss
            or a weight is no longer finite; the last checkpoint is kept.
        WeightsError: the checkpoint is damaged or belongs to another model.
        PartzooError: another process trains in the folder, another process of this training has ended, or the last
            checkpoint cannot be written.
    """
    shared = processes(device)
    rank, ranks = shared.process_index, shared.num_processes
    if options.batch_size % ranks:
        raise UsageError(f"{ranks} processes cannot share {options.batch_size} images evenly. Set loop.batch_size.")
    if options.shard and not task.SHARDS:
        raise UsageError(NO_SHARDS.format(task.METHOD))
    if options.shard and ranks == 1:
        raise UsageError("shard=True is for several processes. Leave it out, or start them; see docs/training.md.")
    out = run_folder(out)
    with locked(out) if rank == 0 else contextlib.nullcontext():
        return _fit(task, images, options, run_folder(out, fresh=not resume), resume, progress, record, device)


def _fit(
    task: Task,
    images: Examples,
    options: LoopOptions,
    out: Path,
    resume: bool,
    progress: bool,
    record: Callable[[], None] | None,
    device: Device,
) -> Progress:
    """Train in a folder that no other process writes; see :func:`fit`."""
    accelerator = accelerator_on(device)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    bf16 = has_bf16(accelerator.device) if options.precision == "auto" else options.precision == "bf16"
    if options.channels_last:
        task.to(memory_format=torch.channels_last)
    if options.shard:
        shard(task, accelerator.device)
    optimizer = _optimizer(task, options)
    state, count = Progress(), len(images)
    if resume and (out / CHECKPOINT).exists():
        state = _restore(task, optimizer, out / CHECKPOINT)
        state.finished = False  # the budget may be larger than that of the run so far
    prepared, optimizer = (task, optimizer) if options.shard else accelerator.prepare(task, optimizer)
    if options.resident:
        images.move(accelerator.device)
    main = accelerator.is_main_process
    checkpoints = _Checkpoints(task, optimizer, out, state, record, main)
    saving = main or options.shard  # all processes take part in putting shards together
    if main and record and not state.step:
        record()
    # All processes draw the same order and share each batch; a resumed run skips the images that it has seen.
    batches = images.epochs(options.batch_size, options.seed, state.images)
    task.train()
    saved, began = state.seconds, time.monotonic() - state.seconds
    terms: dict[str, Tensor] = {}
    with kept_memory(), _stop_signal() as stopped, _Log(out, main, state) as log, tqdm(
        total=1.0, initial=_done(state, options, count), disable=not (progress and main), unit="run",
        bar_format="{l_bar}{bar}| {elapsed} done, {remaining} left{postfix}",
    ) as bar:  # fmt: skip
        stop = False
        while (done := _done(state, options, count)) < 1 and not stop:
            # The seed depends only on the step, so a resumed run draws the same as an uninterrupted one.
            drawn = (options.seed * 1_000_003 + state.step) * 1_009
            indices, pixels = images.draw(next(batches)[rank::ranks], drawn)
            pixels = pixels.to(accelerator.device, non_blocking=True)
            labels = None if images.labels is None else images.labels[indices].to(accelerator.device)
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
            checkpoints.stepped(terms)
            state.step += 1
            state.images += options.batch_size
            state.seconds, stop = _agreed(accelerator, time.monotonic() - began, bool(stopped))
            if state.step % options.log_steps == 0 or _done(state, options, count) >= 1:
                # Only here, because reading a value waits for the device to finish the step.
                values = _means(accelerator, terms)
                state.loss = values["loss"]
                if not math.isfinite(state.loss):
                    raise checkpoints.diverged(f"The loss is {state.loss}", state.step)
                log.row(state, group["lr"], values)
                bar.set_postfix_str(f"loss {state.loss:.3f}, {state.images / state.seconds:.0f} images/s")
            bar.update(_done(state, options, count) - bar.n)
            if saving and state.seconds - saved >= 60 * options.checkpoint_minutes:
                saved = state.seconds
                try:
                    checkpoints.save(state, terms)
                except (OSError, WeightsError) as error:
                    warnings.warn(f"No checkpoint at step {state.step}: {error} It is tried again later.", stacklevel=2)
        state.finished = _done(state, options, count) >= 1
        if saving:  # before the log is closed: the disk may have room for the last rows only after the checkpoint
            checkpoints.save(state, terms)
    if options.shard:
        task.model = unsharded(task.model)
    task.eval()
    return state


def run_folder(out: str | Path, *, fresh: bool = False) -> Path:
    """Create the folder of a run, if it does not exist.

    Raises:
        UsageError: the folder cannot be created, already holds a run or a model where a ``fresh`` one is needed, or has
            a ``log.csv`` of something else.
    """
    out = expand_user(out)
    if fresh and ((out / CHECKPOINT).exists() or (out / MODEL).exists()):
        raise UsageError(f"{out} already holds a run. Add resume=True, or choose another folder with out=.")
    try:
        create_folder(out)
    except OSError as error:
        raise UsageError(f"out={out} cannot be created: {error.strerror}. Choose another folder.") from error
    if not _is_log(out / LOG):
        raise UsageError(f"{out / LOG} is not the log of a run. Choose another folder with out=.")
    return out


def _is_log(file: Path) -> bool:
    """Return whether a file may be continued or replaced as a log: it is one, or there is no such file."""
    try:
        with file.open("rb") as opened:
            head = opened.readline(len(LOG_BEGIN))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return LOG_BEGIN.startswith(head)  # a kill may have left a part of it


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


class _Checkpoints:
    """Writer of a run's checkpoints and model, which never replaces them by values that are not finite.

    Args:
        task, optimizer, out: what to save, and the folder.
        state: state of the run at its start, which the folder's checkpoint has if there is one.
        record: see :func:`fit`.
        main: whether this process writes; others only contribute their shards of the tensors.
    """

    def __init__(
        self,
        task: Task,
        optimizer: torch.optim.Optimizer,
        out: Path,
        state: Progress,
        record: Callable[[], None] | None,
        main: bool,
    ) -> None:
        self._main = main
        self._task, self._optimizer, self._out, self._record = task, optimizer, out, record
        self._last = state.step
        self._first: Tensor | None = None  # loss of the first step after the checkpoint, which shows whether it is good

    def stepped(self, terms: Mapping[str, Tensor]) -> None:
        """Note the losses of a step, without waiting for the device to compute them."""
        if self._first is None:
            self._first = terms["loss"].detach()

    def save(self, state: Progress, terms: Mapping[str, Tensor]) -> None:
        """Write the model and the checkpoint; ``terms`` are the losses of the last step.

        Raises:
            UsageError: a loss or a weight is not finite; nothing is written.
            WeightsError: a file cannot be written.
        """
        tensors = _whole_state(self._task, self._optimizer)
        weights = {name: tensors[f"{TASK}{name}"] for name, _ in self._task.named_parameters()}
        for name, value in (*terms.items(), *weights.items()):
            if not torch.isfinite(value).all():
                raise self.diverged(f"{name} is no longer finite", state.step)
        if not self._main:
            self._last, self._first = state.step, None
            return
        proven = self._first is not None and torch.isfinite(self._first)
        if proven and (self._out / CHECKPOINT).exists():
            with path_aside(self._out / PREVIOUS) as aside:
                aside.unlink()
                link_or_copy(self._out / CHECKPOINT, aside)
        with contextlib.suppress(OSError):  # there is no log yet, or the disk is full, of which the checkpoint warns
            sync(self._out / LOG)  # so that a checkpoint that survives a power cut has its rows
        _save(self._task.model, tensors, state, self._out)
        if self._record:
            self._record()
        self._last, self._first = state.step, None
        if state.finished:
            (self._out / PREVIOUS).unlink(missing_ok=True)

    def diverged(self, what: str, step: int) -> UsageError:
        """Return the error of a run whose loss or weights are not finite.

        If that began with the first step after the checkpoint, its finite weights are of no use: the one before it is
        put back.
        """
        if self._first is not None and not torch.isfinite(self._first):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._out / PREVIOUS, self._out / CHECKPOINT)
                self._last = _progress(self._out / CHECKPOINT).step
        if not self._last:
            return UsageError(f"{what} at step {step}, before the first checkpoint. Start again with a lower lr=.")
        return UsageError(
            f"{what} at step {step}; the checkpoint of step {self._last} is kept. Add resume=True and a lower lr= to "
            "continue from it."
        )


def _whole_state(task: Task, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name; of sharded ones, every process must ask for them."""
    tensors = {f"{TASK}{name}": whole(value) for name, value in task.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        moments = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        tensors |= {f"{OPTIMIZER}{index}.{name}": whole(value) for name, value in moments.items()}
    return tensors


def _save(model: Model, tensors: dict[str, Tensor], state: Progress, out: Path) -> None:
    """Write the model and the checkpoint with these tensors.

    Raises:
        WeightsError: a file cannot be written.
    """
    own = f"{TASK}model."
    weights = {name.removeprefix(own): value for name, value in tensors.items() if name.startswith(own)}
    write_weights(out / MODEL, weights, model.architecture, asdict(model.config))
    about = {"partzoo_format": str(FORMAT), "progress": json.dumps(asdict(state))}
    try:
        save_tensors(out / CHECKPOINT, tensors, about)
    except OSError as error:
        raise WeightsError(f"{out / CHECKPOINT} cannot be written ({error}): free some space.") from error


def _restore(task: Task, optimizer: torch.optim.Optimizer, file: Path) -> Progress:
    with reading(file, WeightsError, fix=NO_RESUME):
        progress = _progress(file)
        tensors, _ = read_tensors(file, fix=NO_RESUME)
        values = {name.removeprefix(TASK): value for name, value in tensors.items() if name.startswith(TASK)}
        own = task.state_dict()
        task.load_state_dict({name: like(value, own.get(name, value)) for name, value in values.items()})
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(OPTIMIZER):
                _, index, name = key.split(".")
                parameter = parameters[int(index)]
                # A fused optimizer steps through memory linearly, so a moment needs its parameter's memory layout.
                empty = torch.empty_like(parameter, dtype=value.dtype)
                laid = value if value.ndim == 0 else empty.copy_(like(value, parameter))
                states.setdefault(int(index), {})[name] = laid
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        return progress


def _progress(file: Path) -> Progress:
    """Read how far the run of a checkpoint came."""
    with reading(file, WeightsError, fix=NO_RESUME):
        about = read_metadata(file, fix=NO_RESUME)
        check_version(about.get("partzoo_format"), FORMAT, str(file), WeightsError)
        progress = Progress(**parse_json(about["progress"]))
        for field in fields(Progress):
            if type(value := getattr(progress, field.name)) is not type(field.default):
                raise TypeError(f"its {field.name} is {value!r:.40}")
        return progress


@contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """Provide a list that receives the numbers of the signals that ask the process to stop.

    The third of the same kind ends the process at once, even in the middle of a step.
    """
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)

    def receive(number: int, _: object) -> None:
        received.append(number)
        if received.count(number) == 2:
            signal.signal(number, signal.SIG_DFL)

    try:
        previous = [signal.signal(number, receive) for number in signals]
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
        self._waiting: list[Mapping[str, float]] = []  # rows that could not be written yet

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
        with contextlib.suppress(OSError):  # a full disk, of which the rows have warned
            self._append_waiting()
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _forget(self) -> None:
        """Delete log rows of steps after the checkpoint, which remain if a run was killed."""
        file = self._out / LOG
        if file.exists():
            lines = file.read_bytes().splitlines(keepends=True)
            steps = [(row.partition(b",")[0], row) for row in lines[1:] if row.endswith(b"\n")]
            # Digits are limited because Python refuses to convert very long numbers.
            kept = [row for step, row in steps if step.isdigit() and len(step) < 20 and int(step) <= self._step]
            write_if_changed(file, b"".join([lines[0], *kept] if kept else []))

    def row(self, state: Progress, lr: float, values: dict[str, float]) -> None:
        """Append a row; if it cannot be written, on a full disk for example, it is written with a later one."""
        if not self._enabled:
            return
        row = {"step": state.step, "images": state.images, "seconds": round(state.seconds, 1), "lr": lr} | values
        self._waiting.append(row)
        try:
            self._append_waiting()
            if self._writer:
                for name, value in values.items():
                    self._writer.add_scalar(name, value, state.images)
        except OSError as error:
            warnings.warn(f"No row in the log for step {state.step} yet: {error.strerror or error}.", stacklevel=2)

    def _append_waiting(self) -> None:
        while self._waiting:
            self._append(self._waiting[0])
            del self._waiting[0]

    def _append(self, row: Mapping[str, float]) -> None:
        file = self._out / LOG
        size = file.stat().st_size if file.exists() else 0
        try:
            with open(file, "a", newline="") as opened:
                writer = csv.DictWriter(opened, row)
                if not size:
                    writer.writeheader()
                writer.writerow(row)
        except OSError:
            if file.exists():
                os.truncate(file, size)  # half a row would spoil the next one
            raise
