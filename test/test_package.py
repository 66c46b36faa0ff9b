# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The ROS package's own description agrees with what is in it."""

import ast
import configparser
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path
from xml.etree import ElementTree

import pytest

from td3_driver import interpreter

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it.
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = [ROOT / "package.xml", *sorted(ROOT.glob("interfaces/*/package.xml"))]

# Python packages that are neither ROS packages nor Python's own, by the name they are imported by:
# where each comes from in a ROS workspace.
ROSDEP_KEYS = {
    "PIL": "python3-pil",
    "cv2": "python3-opencv",
    "matplotlib": "python3-matplotlib",
    "networkx": "python3-networkx",
    "numpy": "python3-numpy",
    "packaging": "python3-packaging",
    "tqdm": "python3-tqdm",
    "yaml": "python3-yaml",
}
IMPORTED_AS = {"pillow": "PIL", "pyyaml": "yaml"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"td3_driver"}
NODES = {
    "simulator",
    "trainer",
    "driver",
    "ackermann_controller",
    "recorder",
    "recording_tool",
    "player",
}


def imported_packages() -> dict[str, set[str]]:
    """List the top-level packages that the code imports, each with the files that do."""
    found: dict[str, set[str]] = {}
    for file in [*ROOT.glob("td3_driver/**/*.py"), *ROOT.glob("launch/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            elif isinstance(node, ast.Constant) and re.fullmatch(
                r"\w+/(msg|srv)/\w+", str(node.value)
            ):
                # A message type by name, imported when the topic is made.
                names = [node.value.split("/")[0]]
            else:
                continue
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(file.relative_to(ROOT)))
    return found


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0]


def required() -> set[str]:
    """List what pyproject.toml has training, driving and exporting depend on."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["onnx"], *extras["fleet"]]
    return {name_of(line) for line in lines}


def from_pip() -> set[str]:
    """List what of that rosdep does not install, by the names it is imported by."""
    return {IMPORTED_AS.get(name, name) for name in required()} - ROSDEP_KEYS.keys()


def dependencies(tag: str) -> set[str]:
    return {element.text or "" for element in ElementTree.parse(MANIFESTS[0]).getroot().iter(tag)}


def test_every_python_file_begins_with_its_copyright_and_licence():
    folders = ("td3_driver", "test", "benchmarks", "tools", "launch", "examples")
    files = [ROOT / "setup.py", *(f for name in folders for f in (ROOT / name).rglob("*.py"))]
    lines = ["# Copyright 2026 td3_driver authors", "# SPDX-License-Identifier: Apache-2.0"]
    assert [f for f in files if f.read_text().splitlines()[:2] != lines] == []
    # An executable begins with its interpreter.
    scripts = (ROOT / "executables").iterdir()
    assert [f for f in scripts if f.read_text().splitlines()[1:3] != lines] == []


def test_the_version_is_the_same_wherever_it_stands():
    version = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    assert PROJECT["version"] == version
    assert re.search(rf"^{re.escape(version)} \(", (ROOT / "CHANGELOG.rst").read_text(), re.M)


def test_old_setuptools_get_the_same_as_those_that_read_pyproject():
    (repeated,) = (
        node.value
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets) == "REPEATED"
    )
    scripts = [f"{name} = {function}" for name, function in PROJECT["scripts"].items()]
    assert eval(ast.unparse(repeated), {"PACKAGE": "td3_driver"}) == {
        "name": PROJECT["name"],
        "version": PROJECT["version"],
        "python_requires": PROJECT["requires-python"],
        "install_requires": PROJECT["dependencies"],
        "entry_points": {"console_scripts": scripts},
    }


def test_the_ros_package_says_what_pip_installs():
    root = ElementTree.parse(MANIFESTS[0]).getroot()
    assert root.findtext("name") == PROJECT["name"]
    person = {"name": root.findtext("maintainer"), "email": root.find("maintainer").get("email")}
    assert PROJECT["maintainers"] == [person]
    declared = {key for key in dependencies("exec_depend") if key.startswith("python3-")}
    assert declared == set(ROSDEP_KEYS.values())
    listed = re.search(r"as it must\s+\(([^)]*)\)", MANIFESTS[0].read_text())[1]
    assert {name_of(name) for name in re.split(r",\s+", listed)} == from_pip()
    tests = {key.removeprefix("python3-") for key in dependencies("test_depend")}
    assert tests <= set(PROJECT["optional-dependencies"]["development"])


def test_the_linters_of_a_commit_are_those_of_make_lint():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pinned = re.search(r"^ruff==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert set(re.findall(r"ruff==([\d.]+)", hooks)) == {pinned[1]}


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_manifest_is_complete(manifest):
    root = ElementTree.parse(manifest).getroot()
    assert root.tag == "package"
    assert root.get("format") == "3"
    for tag in ("name", "version", "description", "license"):
        assert (root.findtext(tag) or "").strip(), tag
    assert "@" in root.find("maintainer").get("email")
    assert root.findtext("export/build_type") in ("ament_python", "ament_cmake")


def test_every_ros_package_imported_is_an_exec_depend():
    declared = dependencies("exec_depend")
    missing = {
        name: sorted(files)
        for name, files in imported_packages().items()
        if name not in sys.stdlib_module_names | OWN | from_pip()
        and ROSDEP_KEYS.get(name, name) not in declared
    }
    assert not missing, f"package.xml lacks an exec_depend for {missing}"


def test_every_python_package_imported_is_a_requirement():
    ros = (ROOT / "requirements-ros.txt").read_text().splitlines()
    available = {IMPORTED_AS.get(name, name) for name in required()}
    if "opencv-python-headless" in ros:
        available.add("cv2")
    imported = imported_packages().keys() - sys.stdlib_module_names - OWN
    ros_packages = dependencies("exec_depend")
    missing = imported - ros_packages - available
    assert not missing, f"pyproject.toml lacks {missing}"


def test_every_requirement_is_pinned():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = {"pyproject.toml": [*PROJECT["dependencies"]]}
    for lines in PROJECT["optional-dependencies"].values():
        wanted["pyproject.toml"] += lines
    for file in ROOT.glob("requirements*.txt"):
        lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
        wanted[file.name] = lines
    for file, lines in wanted.items():
        for line in lines:
            assert name_of(line) in pinned, f"{file}: {line}"


def setup(folder: Path, *commands: str | Path) -> None:
    """Run setup.py as colcon and pip do, with what it builds in `folder`."""
    apart = ["egg_info", "--egg-base", folder, "build", "--build-base", folder / "build"]
    subprocess.run(
        [sys.executable, "setup.py", *apart, *commands],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )


def test_a_workspace_has_the_nodes_where_ros2_run_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", "/environment")
    prefix = tmp_path / "install"
    record = ("--record", tmp_path / "record", "--single-version-externally-managed")
    setup(tmp_path, "install", "--prefix", prefix, *record)
    found = {path.name for path in (prefix / "lib" / "td3_driver").iterdir()}
    assert found == NODES
    assert {path.name for path in (prefix / "bin").iterdir()} == {"td3-driver"}
    (note,) = prefix.glob(f"lib/python*/site-packages/td3_driver/{interpreter.BUILD_RECORD.name}")
    assert json.loads(note.read_text()) == {"checkout": str(ROOT), "environment": "/environment"}


# What colcon-python-setup-py reads, as it does.
READ_AS_COLCON_DOES = """
import ast, setuptools
from distutils.core import run_setup
found = run_setup("setup.py", script_args=("--dry-run",), stop_after="config")
skipped = ("cmdclass", "distclass", "ext_modules", "metadata", *found.display_option_names)
data = {k: v for k, v in vars(found).items()
        if not k.startswith("_") and not callable(v) and k not in skipped}
skipped = ("license_files", "provides_extras")
data["metadata"] = {k: v for k, v in vars(found.metadata).items() if k not in skipped}
print(ast.literal_eval(repr(data))["metadata"]["python_requires"])
"""


def test_colcon_can_read_the_setup():
    done = subprocess.run(
        [sys.executable, "-c", READ_AS_COLCON_DOES], cwd=ROOT, capture_output=True, text=True
    )
    assert set(done.stdout.strip().split(",")) == {"<3.13", ">=3.10"}, done.stderr


def test_colcon_can_build_with_links_in_a_folder_without_pyproject(tmp_path):
    for name in ("setup.py", "td3_driver"):
        (tmp_path / name).symlink_to(ROOT / name)
    build = [sys.executable, "setup.py", "egg_info", "--egg-base", tmp_path]
    subprocess.run(build, cwd=tmp_path, capture_output=True, check=True)
    commands = (tmp_path / "td3_driver.egg-info" / "entry_points.txt").read_text()
    assert "td3-driver = td3_driver.interpreter:command_line" in commands


def test_pip_puts_nothing_but_td3_driver_on_the_path(tmp_path):
    setup(tmp_path, "bdist_wheel", "--bdist-dir", tmp_path / "wheel", "--dist-dir", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = archive.infolist()
        (commands,) = (file for file in files if file.filename.endswith("/entry_points.txt"))
        config = configparser.ConfigParser()
        config.read_string(archive.read(commands).decode())
    assert {name: list(config[name]) for name in config.sections()} == {
        "console_scripts": ["td3-driver"]
    }
    assert not [file.filename for file in files if ".data/scripts/" in file.filename]
    assert not [file.filename for file in files if "build.json" in file.filename]
    names = {file.filename for file in files}
    assert "td3_driver/evaluation/page/suite.html" in names
    assert any(name.endswith("share/td3_driver/config/suites/lane.yaml") for name in names)
    nodes = [file for file in files if ".data/data/lib/td3_driver/" in file.filename]
    assert {Path(file.filename).name for file in nodes} == NODES
    assert all(file.external_attr >> 16 & 0o111 == 0o111 for file in nodes)


WRONG = ["--ros-args", "-p", "no_such:=1"]
# Each imports PyTorch for seconds. `test_interpreter` starts one of them as users do.
FORKED = {"trainer", "driver"}


@pytest.mark.ros
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(NODES - FORKED))
def test_an_executable_runs_its_node(name):
    node = subprocess.run(
        [ROOT / "executables" / name, *WRONG],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert node.returncode == 2
    assert "error: " in node.stderr
    assert "no_such" in node.stderr


@pytest.mark.ros
@pytest.mark.parametrize("name", sorted(FORKED))
def test_an_executable_runs_its_node_where_all_is_imported(name, forked):
    executable = ROOT / "executables" / name
    assert os.access(executable, os.X_OK)
    assert executable.read_text().startswith("#!/usr/bin/env python3\n")
    script = [str(executable), *WRONG]
    node = forked("node_process:run_script", script, stderr=subprocess.PIPE)
    _, said = node.communicate(timeout=60.0)
    assert node.returncode == 2
    assert "error: " in said
    assert "no_such" in said


def test_the_package_is_marked_for_the_ament_index():
    assert (ROOT / "resource" / "td3_driver").is_file()


def test_every_command_can_be_loaded():
    commands = [
        entry
        for entry in entry_points(group="console_scripts")
        if entry.value.startswith("td3_driver.")
    ]
    assert {entry.name for entry in commands} == {"td3-driver"}
    for entry in commands:
        assert callable(entry.load())


@pytest.mark.ros
def test_a_test_has_a_domain_of_its_own(ros_domain):
    assert os.environ["ROS_DOMAIN_ID"] == str(ros_domain)
    assert 1 <= ros_domain <= 100


def test_a_domain_in_use_is_not_given_out_again():
    probe = "from conftest import free_domain\nwith free_domain() as d: print(d)"
    from conftest import free_domain

    with free_domain() as mine, free_domain() as other:
        assert mine != other
        done = subprocess.run(
            [sys.executable, "-c", probe],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) not in (mine, other)
