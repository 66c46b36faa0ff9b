# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The doctor's look at the environment, its table, its JSON and its exit code."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from carla_graph import own_domain, simulator_node

from td3_driver import cli
from td3_driver.bridge import topics
from td3_driver.bridge.driver_topics import DRIVER_TOPICS
from td3_driver.doctor import environment, graph
from td3_driver.doctor.findings import Finding, Verdict, as_dict, healthy, table
from td3_driver.launching import carla_bridge


def found(world: str = "auto") -> dict[str, Finding]:
    findings = environment.examine(world)
    for finding in findings:
        assert finding.remedy or finding.verdict is not Verdict.FAILED
    return {finding.check: finding for finding in findings}


def failures(findings: dict[str, Finding]) -> set[str]:
    return {check for check, finding in findings.items() if finding.verdict is Verdict.FAILED}


def test_this_environment_is_healthy() -> None:
    findings = found()
    assert not failures(findings)
    assert {"Python", "torch", "carla", "OpenCV", "rclpy", "carla_msgs", "GPU"} <= set(findings)
    packages = {topic.type_name.split("/")[0] for topic in (*topics.TOPICS, *DRIVER_TOPICS)}
    assert packages <= set(findings)


def test_another_python_than_the_package_takes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    python = found()["Python"]
    assert python.verdict is Verdict.FAILED and "3.9.1, not" in python.found
    assert ">=3.10" in python.remedy


def test_missing_and_wrong_versions_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return "0.9.13" if name == "carla" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = found()
    assert failures(findings) == {"safetensors", "carla"}
    assert findings["safetensors"].found == "not installed"
    assert findings["carla"].found == "0.9.13, not ==0.9.16"


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = environment.importlib.import_module

    def import_module(name: str) -> object:
        if name in ("cv2", "carla_msgs.msg", "td3_driver_msgs.msg", "rclpy"):
            raise ImportError("libGL.so.1 is missing\nand more")
        return real(name)

    monkeypatch.setattr("importlib.import_module", import_module)
    findings = found()
    assert failures(findings) == {"OpenCV", "carla_msgs", "td3_driver_msgs", "rclpy"}
    assert findings["OpenCV"].found == "cannot be imported: libGL.so.1 is missing"
    for package in ("carla_msgs", "td3_driver_msgs"):
        assert f"interfaces/{package}" in findings[package].remedy


def torch_with(monkeypatch: pytest.MonkeyPatch, found: tuple[bool, str], nvidia_smi: bool) -> None:
    monkeypatch.setattr("td3_driver.learning.devices.find_gpu", lambda: found)
    cuda = SimpleNamespace(
        get_device_properties=lambda index: SimpleNamespace(name="A GPU", total_memory=80 << 30),
    )
    real = environment.importlib.import_module
    fake = SimpleNamespace(cuda=cuda, __version__="2.13.0+cpu")
    monkeypatch.setattr(
        "importlib.import_module", lambda name: fake if name == "torch" else real(name)
    )
    monkeypatch.setattr("shutil.which", lambda name: "/bin/it" if nvidia_smi else None)


@pytest.mark.parametrize(
    "gpu, nvidia_smi, verdict, words",
    [
        ((True, ""), True, Verdict.OK, "A GPU, 80 GiB"),
        ((True, "no kernel"), True, Verdict.FAILED, "A GPU, 80 GiB, cannot be used: no kernel"),
        ((False, ""), False, Verdict.WARNING, "none"),
        ((False, ""), True, Verdict.FAILED, "2.13.0+cpu finds none"),
        ((False, "too old"), True, Verdict.FAILED, "although nvidia-smi is installed: too old"),
    ],
)
def test_the_gpu(
    gpu: tuple[bool, str],
    nvidia_smi: bool,
    verdict: Verdict,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch_with(monkeypatch, gpu, nvidia_smi)
    finding = found()["GPU"]
    assert finding.verdict is verdict and words in finding.found


def test_too_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=64 << 20))
    finding = found()["shared memory"]
    assert finding.verdict is Verdict.WARNING and "--ipc=host" in finding.remedy


def test_shared_memory_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    finding = found()["shared memory"]
    assert finding.verdict is Verdict.WARNING and "cannot be written" in finding.found


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install packages of the bridge's names; return its Python package."""
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    for name in carla_bridge.PACKAGES:
        (index / name).touch()
    package = tmp_path / "carla_ros_bridge"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    return package


@pytest.mark.parametrize(
    "text, verdict, words",
    [
        ("0.9.16\n", Verdict.OK, "as the carla wheel"),
        ("0.9.13\n", Verdict.FAILED, "0.9.13, but the carla wheel is 0.9.16"),
        ("0.9.16", Verdict.FAILED, "no newline"),
    ],
)
def test_the_carla_wheel_has_to_be_the_bridges(
    text: str, verdict: Verdict, words: str, bridge: Path
) -> None:
    (bridge / "CARLA_VERSION").write_text(text)
    finding = found("carla")["CARLA_VERSION"]
    assert finding.verdict is verdict and words in finding.found


def test_a_bridge_that_is_not_installed_here_can_still_be_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    finding = found("carla")["carla-ros-bridge"]
    assert finding.verdict is Verdict.WARNING and "carla_spawn_objects" in finding.found


FINDINGS = [
    Finding("one", "first", Verdict.OK, "there"),
    Finding("one", "the second", Verdict.FAILED, "gone", "bring it back"),
    Finding("two", "third", Verdict.WARNING, "thin"),
]


def test_the_table_has_a_line_for_each_finding_and_its_remedy() -> None:
    assert table(FINDINGS).splitlines() == [
        "one",
        "  ok       first       there",
        "  FAILED   the second  gone",
        "                       -> bring it back",
        "",
        "two",
        "  warning  third       thin",
        "",
        "1 ok, 1 warning, 1 failed",
    ]


def test_only_a_failure_is_unhealthy() -> None:
    assert not healthy(FINDINGS) and healthy([FINDINGS[0], FINDINGS[2]])
    document = json.loads(json.dumps(as_dict(FINDINGS)))
    assert document["ok"] is False
    assert document["findings"][1] == {
        "group": "one",
        "check": "the second",
        "verdict": "failed",
        "found": "gone",
        "remedy": "bring it back",
    }


def test_scripts_can_tell_by_exit_code_and_json(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "DISCOVERY_S", 1.0)
    assert cli.main(["doctor", "--json", "--world", "embedded"]) == 1
    output = capfd.readouterr()
    document = json.loads(output.out)
    assert not document["ok"] and document["findings"][-1]["check"] == "running"
    assert "looking for a simulator" in output.err
    monkeypatch.setattr(graph, "DISCOVERY_S", 8.0)
    with simulator_node(own_domain()):
        assert cli.main(["doctor", "--world", "embedded", "--watch", "0.5"]) == 0
    assert "0 failed" not in capfd.readouterr().out
    monkeypatch.setattr(graph, "DISCOVERY_S", 0.5)
    assert cli.main(["doctor"]) == 0


def test_a_wrong_setting_is_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--set", "carla.camra=eye"]) == 2
    assert "carla.camra" in capsys.readouterr().err


def test_a_ros_that_cannot_start_is_told_in_a_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "mine")
    assert cli.main(["doctor"]) == 1
    assert "ROS_DOMAIN_ID is 'mine', not a number" in capfd.readouterr().out
