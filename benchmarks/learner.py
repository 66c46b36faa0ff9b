# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Time our TD3 against Stable-Baselines3's, with the same networks and data, including sampling.

    make setup-development
    .venv/bin/python benchmarks/learner.py

Blocks of updates alternate between the two, so that both run under the same load; on a shared
machine, processor time says more than wall-clock time. Ours also shifts the images at random,
which Stable-Baselines3 does not do.
"""

from __future__ import annotations

import os

# PyTorch reads this when it is loaded; the trainer sets the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import gymnasium
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from td3_driver.config import LearningConfig
from td3_driver.learning.devices import available_bytes, choose_device
from td3_driver.learning.execution import Updates, choose_precision, describe, make_updates
from td3_driver.learning.networks import IMAGE, VECTOR, NetworkSpec
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.td3 import TD3
from td3_driver.learning.threads import use_one_thread

STACK, VECTOR_SIZE, ACTIONS = (4, 84, 84), 23, 2
BATCHES = (64, 256)
TRANSITIONS = 10_000
BASELINE_TRANSITIONS = 2_000
"""Its sampling takes equally long with any number; this many take 113 MB."""
MANY_TRANSITIONS = 1_000_000
WARM_UP_UPDATES = 8
CONTROL_PERIOD_S = 0.05
GROUPS = (
    ("convolutions, forward", ("_convolution",)),
    ("convolutions, backward", ("convolution_backward",)),
    ("linear layers", ("addmm", "aten::mm")),
    ("optimisers", ("adam", "Adam")),
    ("targets", ("lerp",)),
    ("sampling and shifting", ("shift and sample",)),
    ("layouts and types", ("copy_", "stack", "cat", "contiguous", "_to_copy")),
    ("activations and norms", ("clamp_min", "relu", "threshold", "tanh", "layer_norm")),
)

try:
    import stable_baselines3
    from stable_baselines3.common.buffers import DictReplayBuffer
    from stable_baselines3.common.logger import Logger
except ImportError:
    sys.exit(
        "stable-baselines3, which this compares with, is missing: "
        "pip install -c constraints.txt stable-baselines3"
    )


def make_spec(settings: LearningConfig) -> NetworkSpec:
    """Return the default networks for the benchmark's observations."""
    return NetworkSpec(
        image=STACK,
        vector_scale=(1.0,) * VECTOR_SIZE,
        actions=ACTIONS,
        channels=settings.channels,
        image_features=settings.image_features,
        hidden=settings.hidden,
    )


def fill(replay: ReplayBuffer) -> None:
    """Fill a buffer with one long episode of noise."""
    slots = replay.capacity
    noise = torch.randint(0, 256, (2000, *STACK[1:]), dtype=torch.uint8)
    for first in range(0, slots, len(noise)):
        replay.images[first : first + len(noise)].copy_(noise[: slots - first])
    for tensor in (replay.vectors, replay.actions, replay.rewards):
        tensor.uniform_(-1.0, 1.0)
    replay.priorities[: slots - 1] = 1.0
    # Adding a million one by one, or restoring them with a copy in host memory, takes too long.
    replay._stacked[:] = STACK[0] - 1
    replay._transitions[:] = np.arange(slots)
    replay._queue[:, 0] = 0, slots - 1
    replay._added[0] = slots
    for name in ("stacked", "transitions", "queue"):
        getattr(replay, name).copy_(torch.from_numpy(getattr(replay, f"_{name}")))


def make_ours(batch: int, device: torch.device, **settings: Any) -> Updates:
    """Return our updates, with a full buffer."""
    config = LearningConfig(
        batch_size=batch, actor_warmup_updates=0, replay_capacity=TRANSITIONS, **settings
    )
    spec = make_spec(config)
    learner = TD3(spec, config, device, precision=choose_precision(config, spec, device))
    replay = make_replay(spec, config, device)
    fill(replay)
    return make_updates(learner, replay, torch.Generator(device).manual_seed(0))


class Noise(gymnasium.Env[Any, Any]):
    """Gives Stable-Baselines3 the shapes; it is never stepped."""

    observation_space: Any = gymnasium.spaces.Dict(
        {
            IMAGE: gymnasium.spaces.Box(0, 255, STACK, np.uint8),
            VECTOR: gymnasium.spaces.Box(-np.inf, np.inf, (VECTOR_SIZE,), np.float32),
        }
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)


def make_baseline(batch: int, device: torch.device) -> stable_baselines3.TD3:
    """Return Stable-Baselines3's TD3, with networks of the same sizes and a full buffer."""
    config = LearningConfig()
    if config.channels != (32, 64, 64):
        raise ValueError("its convolutions have 32, 64 and 64 channels, whatever ours have")
    baseline = stable_baselines3.TD3(
        "MultiInputPolicy",
        Noise(),
        batch_size=batch,
        buffer_size=BASELINE_TRANSITIONS,
        replay_buffer_class=DictReplayBuffer,
        policy_delay=config.policy_freq,
        policy_kwargs={
            "share_features_extractor": False,
            "features_extractor_kwargs": {"cnn_output_dim": config.image_features},
            "net_arch": list(config.hidden),
        },
        device=device,
        seed=0,
    )
    baseline.set_logger(Logger(folder=None, output_formats=[]))
    replay, random = baseline.replay_buffer, np.random.default_rng(0)
    assert isinstance(replay, DictReplayBuffer)
    for observations in (replay.observations, replay.next_observations):
        images, vectors = observations[IMAGE], observations[VECTOR]
        images[:] = random.integers(0, 256, images.shape, np.uint8)
        vectors[:] = random.uniform(-1.0, 1.0, vectors.shape)
    for array in (replay.actions, replay.rewards):
        array[:] = random.uniform(-1.0, 1.0, array.shape)
    replay.full = True
    return baseline


def baseline_bytes(replay: DictReplayBuffer) -> float:
    """Return the memory of a transition in Stable-Baselines3's buffer."""
    arrays = [*replay.observations.values(), *replay.next_observations.values()]
    arrays += [replay.actions, replay.rewards, replay.dones, replay.timeouts]
    return sum(array.nbytes for array in arrays) / replay.buffer_size


def wait(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(
    batch: int, device: torch.device, budget_s: float, precision: str
) -> tuple[dict[str, float], Updates, stable_baselines3.TD3]:
    """Time alternating blocks of updates; return the figures and what was timed."""
    ours = make_ours(batch, device, precision=precision)
    baseline = make_baseline(batch, device)
    print(f"\nbatch {batch}: {describe(ours)}")
    steps: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "SB3": lambda: baseline.train(gradient_steps=1, batch_size=batch),
    }
    block = 4 if device.type == "cpu" else 100
    walls: dict[str, list[float]] = {name: [] for name in steps}
    processors: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(WARM_UP_UPDATES):
            step()
    start = time.perf_counter()
    while time.perf_counter() - start < budget_s or len(walls["SB3"]) < 3:
        for name, step in steps.items():
            wait(device)
            wall, processor = time.perf_counter(), time.process_time()
            for _ in range(block):
                step()
            wait(device)
            walls[name].append((time.perf_counter() - wall) / block)
            processors[name].append((time.process_time() - processor) / block)
    figures = {}
    for name in steps:
        wall_s, processor_s = median(walls[name]), median(processors[name])
        low, high = (1.0 / np.percentile(walls[name], share) for share in (90, 10))
        kinds = time_kinds(steps[name], device)
        figures[name] = 1.0 / wall_s
        print(
            f"  {name:5} {1.0 / wall_s:8.2f} updates/s (10 to 90 %: {low:.2f} to {high:.2f}), "
            f"{processor_s * 1e3:.1f} ms of processor; "
            f"critic {kinds[0] * 1e3:.2f} ms, critic and actor {kinds[1] * 1e3:.2f} ms"
        )
    processor_ratio = median(processors["SB3"]) / median(processors["ours"])
    # Blocks next to each other in time ran under the same load.
    ratio = median(np.array(walls["SB3"]) / np.array(walls["ours"]))
    print(
        f"  {ratio:.2f} times as many updates/s, {processor_ratio:.2f} times in processor time "
        f"({len(walls['SB3'])} blocks of {block} each)"
    )
    result = {
        f"updates_per_s_{batch}": figures["ours"],
        f"sb3_updates_per_s_{batch}": figures["SB3"],
        f"ratio_{batch}": ratio,
        f"processor_ratio_{batch}": processor_ratio,
    }
    return result, ours, baseline


def time_kinds(step: Callable[[], Any], device: torch.device, pairs: int = 5) -> list[float]:
    """Return the median seconds of an update of only the critic, and of both networks."""
    times: tuple[list[float], list[float]] = ([], [])
    for index in range(2 * pairs):  # both libraries update the actor in every second one
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        times[index % 2].append(time.perf_counter() - start)
    return [median(kind) for kind in times]


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int = 1024) -> float:
    """Return the multiplications and additions a second of a product of matrices."""
    one, other = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(12):
        wait(device)
        start = time.perf_counter()
        torch.mm(one, other)
        wait(device)
        times.append(time.perf_counter() - start)
    return 2.0 * side**3 / median(times)


def show_floor(updates: Updates, device: torch.device) -> dict[str, float]:
    """Print the time of an update beside that of its multiplications in products of matrices."""
    kinds = updates.learner.settings.policy_freq
    learner, settings = updates.learner, updates.learner.settings
    batch = updates.replay.sample(
        settings.batch_size, torch.Generator(device), learner.draw_shifts(settings.batch_size)
    )
    with FlopCounterMode(display=False) as counter:
        for _ in range(kinds):
            learner.update(batch)
    flops = counter.get_total_flops() / kinds
    rate = matrix_rate(learner.precision, device)
    taken_s = sum(time_kinds(lambda: learner.update(batch), device)) / 2
    print(
        f"  {flops / 1e9:.1f} GFLOP an update on average; products of matrices reach "
        f"{rate / 1e9:.0f} GFLOP/s here: at least {flops / rate * 1e3:.1f} ms; it takes "
        f"{taken_s * 1e3:.1f} ms without sampling"
    )
    return {"gflop": flops / 1e9, "floor_ms": flops / rate * 1e3, "taken_ms": taken_s * 1e3}


def show_profile(updates: Updates, device: torch.device, count: int = 4) -> None:
    """Print where the time of our updates goes."""
    gpu = device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # otherwise, the work of other threads would be missing
    plain = updates.replay.draw

    def draw(*arguments: Any) -> Any:
        with torch.profiler.record_function("shift and sample"):
            return plain(*arguments)

    updates.replay.draw = draw  # type: ignore[method-assign, assignment]
    try:
        updates()
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(count):
                updates()
            wait(device)
    finally:
        del updates.replay.draw
        torch.set_num_threads(threads)
    events = profile.key_averages()
    if gpu:  # kernels have their own names
        print(events.table(sort_by="self_device_time_total", row_limit=15))
        return
    times = {event.key: event.self_cpu_time_total for event in events}
    total = sum(times.values())
    print(f"  an update on one thread, {total / count / 1e3:.1f} ms, goes to")
    left = dict(times)
    for name, patterns in GROUPS:
        keys = [key for key in left if any(pattern in key for pattern in patterns)]
        print(f"    {name:24} {sum(left.pop(key) for key in keys) / total:6.1%}")
    print(f"    {'everything else':24} {sum(left.values()) / total:6.1%}")


def sampling_rates(device: torch.device) -> dict[str, float]:
    """Time drawing batches of 256, including shifts, with two numbers of transitions."""
    rates = {}
    for sampling in ("uniform", "lap"):
        settings = LearningConfig(replay_sampling=sampling)
        spec = make_spec(settings)
        for count in (TRANSITIONS, MANY_TRANSITIONS):
            if 1.2 * count * 7200 > available_bytes(device):
                print(f"  {count:,} transitions do not fit into the memory available")
                continue
            replay = make_replay(
                spec, settings.model_copy(update={"replay_capacity": count}), device
            )
            fill(replay)
            learner = TD3(spec, settings, device)
            generator = torch.Generator(device).manual_seed(0)
            times, processors = [], []
            for _ in range(40):
                wait(device)
                start, processor = time.perf_counter(), time.process_time()
                replay.sample(256, generator, learner.draw_shifts(256))
                wait(device)
                times.append(time.perf_counter() - start)
                processors.append(time.process_time() - processor)
            rates[f"{sampling}_samples_per_s_{count}"] = 1.0 / median(times)
            print(
                f"  {sampling}, {count:9,} transitions: {1.0 / median(times):7.1f} batches/s, "
                f"{median(processors) * 1e3:.2f} ms of processor each"
            )
            del replay
    return rates


def percentiles_ms(times: Iterable[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile in milliseconds."""
    p50, p99 = np.percentile(list(times), (50, 99)) * 1e3
    return float(p50), float(p99)


def inference(updates: Updates, device: torch.device, seconds: float) -> dict[str, float]:
    """Time the policy on one observation, alone and beside the running learner."""
    policy = Policy.like(updates.learner.spec)
    policy.follow(updates.learner.actor)
    random = np.random.default_rng(0)
    observation = {
        IMAGE: random.integers(0, 256, STACK, np.uint8),
        VECTOR: random.uniform(-1.0, 1.0, VECTOR_SIZE).astype(np.float32),
    }

    processor_s = 0.0

    def act() -> float:
        start = time.perf_counter()
        policy.act(observation)
        return time.perf_counter() - start

    def act_for(seconds: float) -> list[float]:
        nonlocal processor_s
        times: list[float] = []
        end = time.perf_counter() + seconds
        before = time.thread_time()
        while time.perf_counter() < end:
            times.append(act())
            time.sleep(max(CONTROL_PERIOD_S - times[-1], 0.0))
        processor_s += time.thread_time() - before
        return times

    for _ in range(20):
        act()
    alone = percentiles_ms(act() for _ in range(500))
    done, stop = 0, threading.Event()

    def learn() -> None:
        nonlocal done
        while not stop.is_set():
            updates()
            wait(device)
            done += 1

    learning = threading.Thread(target=learn)
    learning.start()
    beside: list[float] = []
    rates: dict[str, list[float]] = {"alone": [], "acting": []}
    try:
        time.sleep(1.0)
        use_one_thread()  # as the trainer does
        for _ in range(4):
            for kind, run in (("alone", time.sleep), ("acting", act_for)):
                first, start = done, time.perf_counter()
                beside += run(seconds / 8) or []  # type: ignore[operator, func-returns-value]
                rates[kind].append((done - first) / (time.perf_counter() - start))
    finally:
        stop.set()
        learning.join()
    together = percentiles_ms(beside)
    slower = 1.0 - sum(rates["acting"]) / sum(rates["alone"])
    processor_ms = processor_s / len(beside) * 1e3
    print(f"  alone: p50 {alone[0]:.2f} ms, p99 {alone[1]:.2f} ms")
    print(
        f"  at 20 Hz beside the learner: p50 {together[0]:.2f} ms, p99 {together[1]:.2f} ms; "
        f"the learner is {slower:.1%} slower"
    )
    share = processor_ms / 1e3 / CONTROL_PERIOD_S
    print(f"  {processor_ms:.2f} ms of processor each, {share:.1%} of a core")
    return {
        "policy_p50_ms": alone[0],
        "policy_p99_ms": alone[1],
        "policy_beside_p50_ms": together[0],
        "policy_beside_p99_ms": together[1],
        "policy_processor_ms": processor_ms,
        "learner_slower": slower,
    }


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seconds", type=float, default=40.0, help="per batch size")
    parser.add_argument("--threads", type=int, default=0, help="for PyTorch; 0: its own choice")
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of ours"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(
        f"{name} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, load average {load}; "
        f"PyTorch {torch.__version__}, stable-baselines3 {stable_baselines3.__version__}"
    )
    result: dict[str, Any] = {"device": str(device)}
    for batch in BATCHES:
        figures, ours, baseline = compare(batch, device, options.seconds, options.precision)
        result |= figures
    print("\nthe floor at batch 256:")
    result |= show_floor(ours, device)
    print("\nprofile at batch 256:")
    show_profile(ours, device)
    assert isinstance(baseline.replay_buffer, DictReplayBuffer)
    assert isinstance(ours.replay, ReplayBuffer)
    result["bytes_per_transition"] = ours.replay.size_bytes / ours.replay.capacity
    result["sb3_bytes_per_transition"] = baseline_bytes(baseline.replay_buffer)
    print(
        f"\na transition takes {result['bytes_per_transition']:,.0f} bytes; "
        f"Stable-Baselines3: {result['sb3_bytes_per_transition']:,.0f}"
    )
    del baseline
    print("\npolicy for one observation on CPU, learner at batch 256:")
    result |= inference(ours, device, options.seconds)
    del ours
    print("\nreplay, batches of 256:")
    result |= sampling_rates(device)
    rounded = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in result.items()
    }
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
