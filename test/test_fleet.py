# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Collectors, their chunks and the training they feed: in this process, and in their own."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from bandit_training import LEARNING, TRAINING, Bandit, bandit, rows_of

from td3_driver.config import Config, ConfigError, build
from td3_driver.driving.world import WorldError
from td3_driver.fleet.chunk import Chunk, Grant, Intake
from td3_driver.fleet.collector import Ended, Event, Placed, Ready, Weights
from td3_driver.fleet.fleet import DEATHS_IN_A_ROW, Fleet
from td3_driver.fleet.gathering import Brief, Gatherer
from td3_driver.fleet.processes import ProcessEngine
from td3_driver.fleet.training import FleetTraining, fleet_training
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import replay_spec
from td3_driver.learning.exploration import Exploration, noise_ladder
from td3_driver.learning.health import NotFiniteError
from td3_driver.learning.networks import NetworkSpec, network_spec
from td3_driver.learning.pacing import UpdatePacer
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer

pytestmark = pytest.mark.timeout(90)

HERE = Path(__file__).parent


WORLD = "bandit_training:bandit"
"""Also made in collectors' processes, which import no more than it takes."""


def settings(**changes: object) -> Config:
    values = {
        "learning": dict(LEARNING),
        "training": {**TRAINING, "synchronous_updates": True, "updates_per_step": 0.25},
        "fleet": {"collectors": 3, "chunk_decisions": 6, "weights_period_s": 0.0},
    }
    for name, value in changes.items():
        section = next(
            section
            for section in values
            if name in Config.model_fields[section].annotation.model_fields
        )
        values[section][name] = value
    return build(values, "the test")


def spec_of(config: Config) -> NetworkSpec:
    env = Bandit()
    return network_spec(
        config.learning, env.observation_space, env.action_space, np.ones(2, np.float32)
    )


def brief_of(config: Config, number: int = 0, seed: int = 5) -> Brief:
    return Brief(number, config.fleet.collectors, seed, config, spec_of(config), WORLD)


def actors_weights(spec: NetworkSpec, seed: int = 1) -> Weights:
    torch.manual_seed(seed)
    return Policy.like(spec).weights()


# Chunks.


def chunks_of(config: Config, sizes: list[int], env: Bandit | None = None) -> list[Chunk]:
    gatherer = Gatherer(brief_of(config), env or Bandit())
    weights: Weights | None = actors_weights(spec_of(config))
    chunks, step = [], 0
    for sequence, size in enumerate(sizes):
        chunks.append(gatherer.gather(Grant(sequence, step, size, 7, weights)))
        step, weights = step + size, None
    return chunks


def test_chunks_fill_a_ring_as_the_trainer_fills_its_buffer() -> None:
    config = settings(random_steps=9)
    env, twin = Bandit(), Bandit()
    env.unclean_at = twin.unclean_at = 13
    direct = ReplayBuffer(replay_spec(spec_of(config)), 60)
    policy = Policy.like(spec_of(config))
    policy.load_weights(actors_weights(spec_of(config)))
    # Collector 0 of 3 has half of the noise.
    explore = Exploration(config.learning, 9, torch.Generator().manual_seed(5), 0.5)
    observation, seed = None, 5
    for step in range(30):
        if observation is None:
            observation, _ = twin.reset(seed=seed)
            seed = None
            direct.begin(observation)
        action = explore.act(policy, observation, step)
        observation, reward, terminated, truncated, info = twin.step(action)
        direct.add(
            action,
            reward,
            observation,
            terminated=terminated,
            truncated=truncated,
            clean=info["clean"],
        )
        if terminated or truncated:
            observation = None

    ring = ReplayBuffer(replay_spec(spec_of(config)), 60)
    chunks = chunks_of(config, [6, 1, 11, 12], env)
    intake = Intake(ring, 0)
    assert [intake.take(chunk) for chunk in chunks] == [6, 1, 11, 12]
    assert [chunk.decisions for chunk in chunks] == [6, 1, 11, 12]
    for name, tensor in direct.state().items():
        assert torch.equal(tensor, ring.state()[name]), name
    assert (
        sum(chunk.ended for chunk in chunks) == 8
    )  # three of 4 steps, one of 1, four of 4; one goes on
    assert {chunk.policy_version for chunk in chunks} == {7}
    assert chunks[0].images.dtype == np.uint8 and chunks[0].images.shape[1:] == (36, 36)


def test_nothing_enters_twice_and_what_is_missing_is_marked() -> None:
    config = settings()
    ring = ReplayBuffer(replay_spec(spec_of(config)), 100, rings=2)
    chunks = chunks_of(config, [6, 6, 6, 6])
    intake = Intake(ring, 1)
    assert intake.take(chunks[0]) == 6
    assert intake.take(chunks[0]) == 0
    # Episodes are of 4 steps. Chunk 1 never comes; chunk 2 has the steps 12-17, and begins one.
    assert intake.take(chunks[2]) == 6
    assert intake.gaps == [range(1, 2)] and intake.left_out == 0
    assert intake.take(chunks[1]) == 0  # too late
    assert intake.repeats == 2
    # Chunk 3 has the steps 18-23; the first two are of an episode that began at 16.
    lone = Intake(ReplayBuffer(ring.spec, 50), 0)
    assert lone.take(chunks[3]) == 4
    assert lone.gaps == [range(3)] and lone.left_out == 2
    assert len(lone.replay) == 4
    assert ring.sizes() == [0, 12]


def test_no_return_extends_across_a_gap() -> None:
    config = settings()
    chunks = chunks_of(config, [6, 6, 6])
    ring = ReplayBuffer(replay_spec(spec_of(config)), 100, n_step=3, discount=0.5)
    intake = Intake(ring, 0)
    intake.take(chunks[0])
    intake.take(chunks[2])
    # Slots 5 and 6 start the two steps of the second episode that came; slot 7 is its last.
    batch = ring.gather(torch.tensor([5, 6]))
    assert batch.steps.tolist() == [2.0, 1.0] and batch.terminated.tolist() == [0.0, 0.0]


def test_the_ladder_of_noise() -> None:
    factors = [noise_ladder(number, 4, 0.5, 4.0) for number in range(4)]
    assert factors == pytest.approx([0.5, 1.0, 2.0, 4.0])
    assert noise_ladder(0, 1, 0.5, 4.0) == 1.0


def test_collectors_of_one_run_differ_in_noise_and_in_starts() -> None:
    config = settings(random_steps=0, exploration_noise=0.4, collectors=2)
    weights = actors_weights(spec_of(config))
    spread = []
    for number in (0, 1):
        env = Bandit()
        gatherer = Gatherer(brief_of(config, number, seed=number), env)
        gatherer.gather(Grant(0, 0, 400, 0, weights))
        spread.append(np.std(env.actions))
    assert 0.1 < spread[0] < 0.3 < spread[1] < 0.7


# Leave by the ratio.


def test_steps_may_be_begun_while_their_updates_are_few() -> None:
    done: list[int] = []
    pacer = UpdatePacer(lambda: done.append(1), ratio=0.5, first_step=10, threaded=False)
    assert math.isnan(pacer.held_ratio)
    # 10 steps bring none; 40 more bring 20, the most that may be left to do.
    assert pacer.allows(50, ahead=40) and not pacer.allows(52, ahead=40)
    pacer.step_taken(30)  # 10 updates
    assert pacer.allows(70, ahead=40) and not pacer.allows(72, ahead=40)
    assert pacer.held_ratio == 0.5 and len(done) == 10


@pytest.mark.parametrize("ratio", [0.02, 0.25, 0.3, 1.0, 1.7])
def test_whoever_is_up_to_date_may_always_begin_a_chunk(ratio: float) -> None:
    pacer = UpdatePacer(lambda: None, ratio=ratio, first_step=3, threaded=False)
    for step in range(60):
        pacer.step_taken(step)
        assert pacer.allows(step + 6, ahead=6)


# A fleet in this process.


class Loopback:
    """An engine whose collectors do their work when they are asked what they have said."""

    name = "loopback"

    def __init__(self, world: Callable[[Brief], gymnasium.Env] = bandit) -> None:
        self.world = world
        self.collectors: dict[int, LoopbackCollector] = {}
        self.closed = False
        self.said: list[tuple[int, Event]] = []
        self.before_receive: Callable[[Loopback], object] = lambda engine: None

    def collector(self, number: int) -> LoopbackCollector:
        self.collectors[number] = LoopbackCollector(self, number)
        return self.collectors[number]

    def receive(self, timeout_s: float) -> list[tuple[int, Event]]:
        self.before_receive(self)
        for collector in self.collectors.values():
            collector.work()
        found, self.said = self.said, []
        return found

    def warnings(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True


class LoopbackCollector:
    def __init__(self, engine: Loopback, number: int) -> None:
        self.engine, self.number = engine, number
        self.grants: list[Grant] = []
        self.seen: list[Grant] = []
        self.briefs: list[Brief] = []
        self.fails = False
        self.silent = False
        self.gatherer: Gatherer | None = None

    def start(self, brief: Brief) -> None:
        self.briefs.append(brief)
        self.gatherer = Gatherer(brief, self.engine.world(brief))
        for event in (Placed("here"), Ready()):
            self.engine.said.append((self.number, event))

    def grant(self, grant: Grant, weights: Weights) -> None:
        full = Grant(grant.sequence, grant.step, grant.decisions, grant.version, weights)
        self.grants.append(full)
        self.seen.append(full)

    def work(self) -> None:
        if self.silent or self.gatherer is None:
            return
        if self.fails:
            self.grants.clear()
            self.engine.said.append((self.number, Ended("it was told to")))
        elif self.grants:
            self.engine.said.append((self.number, self.gatherer.gather(self.grants.pop(0))))

    def stop(self) -> None:
        self.grants.clear()


def make(
    folder: Path,
    config: Config,
    engine: Loopback | ProcessEngine | None = None,
    lines: list[str] | None = None,
    resume: bool = False,
    world: str = WORLD,
    **more: object,
) -> FleetTraining:
    return fleet_training(
        config,
        folder,
        engine or Loopback(),
        spec=spec_of(config),
        world=world,
        say=(lines if lines is not None else []).append,
        resume=resume,
        **more,  # type: ignore[arg-type]
    )


def test_a_run_takes_its_decisions_and_updates_from_all_collectors(tmp_path: Path) -> None:
    shown = []
    training = make(tmp_path, settings(total_steps=200), show=shown.append)
    saved = training.run()
    trainer = training.trainer
    assert trainer.standing.step == 200 and len(trainer.replay) == 200
    assert trainer.learner.updates == 45  # a quarter, without the first 20
    sizes = trainer.replay.sizes()
    assert max(sizes) - min(sizes) <= 2 * 6  # chunks
    assert [intake.gaps for intake in training.intakes] == [[], [], []]
    assert saved.name == "000000200"
    # Saved when a chunk went past a multiple of 25.
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path / "checkpoints")] == [
        "000000180",
        "000000200",
    ]
    row = rows_of(tmp_path)[-1]
    assert float(row["ratio_wanted"]) == 0.25
    assert float(row["ratio_held"]) == pytest.approx(
        0.25, abs=0.01
    )  # the row's own is not counted
    assert float(row["collectors"]) == 3.0
    assert 0.0 <= float(row["policy_lag_median"]) <= float(row["policy_lag_longest"])
    assert shown[-1].collection.startswith("3 of 3 collectors, ratio 0.25 of 0.25, idle: learner ")
    assert trainer.standing.episodes >= 200 // 4 - 3


def test_each_is_at_most_two_chunks_ahead_and_all_end_with_the_run(tmp_path: Path) -> None:
    engine, most = Loopback(), 0
    training = make(tmp_path, settings(total_steps=100), engine)

    def look(engine: Loopback) -> None:
        nonlocal most
        most = max(most, *(len(each.grants) for each in engine.collectors.values()))

    engine.before_receive = look
    training.run()
    assert most == 2 and engine.closed
    grants = [grant for each in engine.collectors.values() for grant in each.seen]
    assert sum(grant.decisions for grant in grants) == 100
    steps = sorted((grant.step, grant.decisions) for grant in grants)
    assert [step for step, _ in steps] == list(np.cumsum([0, *(size for _, size in steps[:-1])]))


def test_collectors_wait_while_the_learner_is_behind(tmp_path: Path) -> None:
    """Nobody updates: what may be begun is bounded by the ratio alone."""
    training = make(tmp_path, settings(total_steps=1000, random_steps=10, chunk_decisions=5))
    pacer = UpdatePacer(lambda: None, ratio=1.0, first_step=10, threaded=False)
    pacer.step_taken = lambda step, wait=True: None  # type: ignore[method-assign]
    training._grant(pacer)
    for _ in range(50):
        for post, chunk in training.fleet.look(0.0):
            training.intakes[post.number].take(chunk)
            training.trainer.standing.step += chunk.decisions
        training._grant(pacer)
    # Two chunks of each, before anybody knew how long one takes; 20 updates are more than those
    # of one chunk.
    assert training.trainer.standing.step == 30 and training.fleet.outstanding == 0


def test_a_slow_learner_has_no_more_collected_than_it_learns_from_meanwhile(
    tmp_path: Path,
) -> None:
    training = make(tmp_path, settings(chunk_decisions=5, updates_per_step=0.5))
    pacer = UpdatePacer(lambda: None, ratio=0.5, first_step=0, threaded=False)
    # The first chunks: two for each of three collectors, and one that waits.
    assert training._ahead(pacer) == 3 * 5 * 3
    pacer.step_taken(200)
    pacer.busy_s = 2.0  # 100 updates, of 100 decisions a second
    training.fleet.turnaround_s = 0.1
    assert training._ahead(pacer) == 5 + 2 * 10
    training.fleet.turnaround_s = 6.4
    assert training._ahead(pacer) == 3 * 5 * 3


def test_policies_are_sent_on_and_a_collector_says_which_it_had(tmp_path: Path) -> None:
    engine = Loopback()
    training = make(tmp_path, settings(total_steps=150), engine)
    training.run()
    versions = [grant.version for grant in engine.collectors[1].seen]
    assert versions == sorted(versions) and versions[0] == 0 and len(set(versions)) > 5
    last = engine.collectors[1].seen[-1].weights
    assert last is not None
    first = engine.collectors[1].seen[0].weights
    assert any(not np.array_equal(last[name], first[name]) for name in last)


def test_one_that_ends_is_started_again_and_the_count_stays_full(tmp_path: Path) -> None:
    engine, lines = Loopback(), []
    training = make(tmp_path, settings(total_steps=200), engine, lines)
    failed = False

    def fail_once(engine: Loopback) -> None:
        nonlocal failed
        second = engine.collectors[1]
        second.fails = not failed and len(second.seen) > 3 and bool(second.grants)
        failed = failed or second.fails
        training.fleet.posts[1].again_s = 0.0

    engine.before_receive = fail_once
    training.run()
    assert training.trainer.standing.step == 200 == len(training.trainer.replay)
    (gap,) = training.intakes[1].gaps
    lost = 6 * len(gap)  # one chunk or two, by how far the updates were
    assert len(gap) in (1, 2) and training.intakes[1].repeats == 0
    seeds = [brief.seed for each in engine.collectors.values() for brief in each.briefs]
    assert len(seeds) == 4 == len(set(seeds))
    (line,) = [line for line in lines if "ended" in line]
    assert line == (
        f"warning: collector 1 has ended (it was told to); up to {lost} decisions under way are "
        "lost; it is started again in 0.5 s"
    )


def test_one_that_ends_again_and_again_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    engine, lines = Loopback(), []
    training = make(tmp_path, settings(total_steps=300, updates_per_step=0.1), engine, lines)

    def fail(engine: Loopback) -> None:
        engine.collectors[2].fails = True
        training.fleet.posts[2].again_s = 0.0

    engine.before_receive = fail
    training.run()
    assert training.trainer.standing.step == 300
    assert len(engine.collectors[2].briefs) == DEATHS_IN_A_ROW
    assert training.trainer.replay.sizes()[2] == 0
    assert any(line.endswith("after 5 ends in a row it is set aside") for line in lines)


def test_without_any_collector_left_the_run_is_saved_and_ends(tmp_path: Path) -> None:
    engine = Loopback()
    training = make(tmp_path, settings(total_steps=200), engine)

    def fail(engine: Loopback) -> None:
        for number, post in enumerate(training.fleet.posts):
            engine.collectors[number].fails = training.trainer.standing.step >= 60
            post.again_s = 0.0

    engine.before_receive = fail
    with pytest.raises(WorldError, match=r"every collector has been set aside.*it was told to"):
        training.run()
    (saved,) = checkpoint.list_checkpoints(tmp_path / "checkpoints")[-1:]
    assert int(saved.name[:9]) >= 60


def test_one_that_is_silent_is_ended_by_the_steady_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, engine, lines = settings(silence_timeout_s=15.0), Loopback(), []
    now = [100.0]
    monkeypatch.setattr("td3_driver.fleet.fleet.time.monotonic", lambda: now[0])
    fleet = Fleet(engine, 2, config.fleet, lambda number: brief_of(config, number), lines.append)
    fleet.look(0.0)
    fleet.look(0.0)
    weights = actors_weights(spec_of(config))

    def wait(seconds: float) -> list[int]:
        """Let time pass while the fleet is looked after."""
        passed = lambda engine: now.__setitem__(0, now[0] + seconds)  # noqa: E731
        engine.before_receive = passed
        chunks = fleet.look(0.0)
        engine.before_receive = lambda engine: None
        return [post.number for post, _ in chunks]

    wait(1000.0)  # neither has had anything to do
    for post in fleet.free():
        fleet.grant(post, 0, 6, 0, weights)
    engine.collectors[0].silent = True
    assert wait(14.0) == [1] and not lines
    now[0] += 60.0  # an examination, while which nobody listens
    assert wait(0.5) == [] and not lines
    wait(1.5)
    assert lines == [
        "warning: collector 0 has ended (it said nothing for 16 s); up to 6 decisions under way "
        "are lost; it is started again in 0.5 s"
    ]
    now[0] += 0.6
    engine.collectors[0].silent = False
    fleet.look(0.0)
    fleet.look(0.0)
    assert fleet.running == 2 and len(engine.collectors[0].briefs) == 2


@pytest.mark.parametrize("before, after", [(3, 3), (2, 5)])
def test_a_run_goes_on_with_another_number_of_collectors(
    tmp_path: Path, before: int, after: int
) -> None:
    first = make(tmp_path, settings(total_steps=120, collectors=before))
    first.run()
    second = make(tmp_path, settings(total_steps=200, collectors=after), resume=True)
    assert (second.trainer.standing.step, second.trainer.learner.updates) == (120, 25)
    assert len(second.trainer.replay) == 120 and len(second.trainer.replay.sizes()) == after
    if before == after:
        for name, tensor in first.trainer.replay.state().items():
            assert torch.equal(tensor, second.trainer.replay.state()[name]), name
    second.run()
    assert (second.trainer.standing.step, second.trainer.learner.updates) == (200, 45)
    assert [int(row["updates"]) for row in rows_of(tmp_path)] == [10, 20, 30, 40]


def test_a_run_with_collectors_goes_on_without_them_and_back(tmp_path: Path) -> None:
    from bandit_training import make as make_plain

    make(tmp_path, settings(total_steps=60)).run()
    plain = make_plain(tmp_path, resume=True, total_steps=90)
    assert len(plain.trainer.replay) == 60
    plain.run()
    assert len(rows_of(tmp_path)) == 4 and rows_of(tmp_path)[0]["collectors"] == "3"
    back = make(tmp_path, settings(total_steps=120), resume=True)
    assert len(back.trainer.replay) == 90
    back.run()
    assert back.trainer.standing.step == 120


def test_a_buffer_too_small_for_its_rings_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="replay_capacity is too small: capacity 100 for 40 rings"
    ):
        make(tmp_path, settings(collectors=40, replay_capacity=100))


def test_infinity_from_a_collector_ends_the_run_before_it_is_stored(tmp_path: Path) -> None:
    class Broken(Bandit):
        def step(self, action: np.ndarray) -> tuple:
            observation, _, *rest = super().step(action)
            return observation, math.inf, *rest

    training = make(tmp_path, settings(), Loopback(lambda brief: Broken()))
    with pytest.raises(NotFiniteError, match="of collector 0"):
        training.run()
    assert len(training.trainer.replay) == 0


# Collectors in processes of their own.


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessEngine]:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    engine = ProcessEngine()
    yield engine
    engine.close()


@pytest.mark.long
def test_processes_are_killed_or_hang_and_come_back(tmp_path: Path, engine: ProcessEngine) -> None:
    config = settings(
        total_steps=1000,
        collectors=2,
        chunk_decisions=8,
        silence_timeout_s=1.0,
        updates_per_step=0.02,
        weights_period_s=0.1,
        synchronous_updates=False,
        replay_capacity=20_000,
        checkpoint_interval_steps=10_000,
    )
    lines: list[str] = []
    training = make(tmp_path, config, engine, lines)
    done: dict[str, int] = {}

    def show(progress: object) -> None:
        step = training.trainer.standing.step
        children = [each.child for each in engine._collectors.values()]
        if "killed" not in done and step > 200 and children[0]:
            done["killed"] = children[0].pid
            os.kill(children[0].pid, signal.SIGKILL)
        if "stopped" not in done and step > 400 and children[1]:
            done["stopped"] = children[1].pid
            os.kill(children[1].pid, signal.SIGSTOP)
        # The run is not to end before both have been missed.
        missed = sum("has ended" in line for line in lines)
        time.sleep(0.25 if missed < 2 and step > 500 else 0.0)

    training._show = show
    training.run()
    assert training.trainer.standing.step == 1000
    assert len(training.trainer.replay) == 1000
    assert set(done) == {"killed", "stopped"}
    told = [line for line in lines if "has ended" in line]
    assert any("collector 0 has ended (killed by SIGKILL)" in line for line in told)
    assert any("collector 1 has ended (it said nothing for" in line for line in told)
    assert [intake.repeats for intake in training.intakes] == [0, 0]
    for pid in done.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def begin_a_collector() -> None:
    collector = ProcessEngine().collector(0)
    collector.start(brief_of(settings()))
    print(collector.child.pid, flush=True)
    time.sleep(60)


@pytest.mark.ros
@pytest.mark.long
def test_a_collector_goes_with_its_parent(
    monkeypatch: pytest.MonkeyPatch, forked: Callable[..., Any]
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    parent = forked("test_fleet:begin_a_collector", stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20.0
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if ") Z " in Path(f"/proc/{pid}/stat").read_text():
            break  # ended; whoever adopted it has not looked yet
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.long
def test_a_world_that_cannot_be_made_says_why(engine: ProcessEngine) -> None:
    config = settings()
    collector = engine.collector(0)
    brief = Brief(0, 1, 0, config, spec_of(config), "test_fleet:no_such_world")
    collector.start(brief)
    said: list[Event] = []
    while not any(isinstance(event, Ended) for event in said):
        said += [event for _, event in engine.receive(5.0)]
    assert isinstance(said[-1], Ended)
    assert said[-1].reason.startswith("AttributeError: ") and "no_such_world" in said[-1].reason
