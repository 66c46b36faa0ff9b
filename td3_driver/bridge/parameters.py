# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Every setting as a ROS parameter `section.setting`, described and limited as in `config`.

The file named by the parameter `config` overrides the defaults, and the process's own arguments
override both (`-p learning.batch_size:=64`, or `--params-file`).
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.parameter import Parameter

from td3_driver import config
from td3_driver.bridge import runtime
from td3_driver.config import WIDEST, Config, ConfigError, Width, shown

SECTIONS: tuple[str, ...] = tuple(Config.model_fields)

# Parameters that rclpy reads itself, or declares for every node.
_ROS_PARAMETERS = ("use_sim_time", "start_type_description_service")
_ROS_PARAMETER_GROUPS = ("qos_overrides.",)
_INTEGER_BOUNDS = (-(2**63), 2**63 - 1)
_FLOAT_BOUNDS = (-sys.float_info.max, sys.float_info.max)


class Own(NamedTuple):
    """A parameter of one node that is not a setting: what the process should do."""

    default: Any
    description: str
    low: int | None = None
    high: int | None = None
    """Bounds of a whole number, both included."""

    def descriptor(self, read_only: bool = True) -> ParameterDescriptor:
        """Return its ROS description."""
        descriptor = ParameterDescriptor(description=self.description, read_only=read_only)
        if self.low is not None or self.high is not None:
            low, high = _INTEGER_BOUNDS
            bounds = (
                low if self.low is None else self.low,
                high if self.high is None else self.high,
            )
            descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1])]
        return descriptor

    def checked(self, name: str, value: Any) -> Any:
        """Return a value; raise ConfigError if it has the wrong type or is out of bounds.

        A whole number stands for a text too: ROS reads `run:=20261125` as one.
        """
        if isinstance(self.default, str) and type(value) is int:
            return str(value)
        if type(value) is not type(self.default):
            quoted = f"; for a text, quote it: -p '{name}:=\"...\"'"
            hint = quoted if isinstance(self.default, str) else ""
            raise ConfigError(
                f"{name}: {shown(value)} is not a {type(self.default).__name__}{hint}"
            )
        if self.low is not None and value < self.low:
            raise ConfigError(f"{name}: {value} is below {self.low}")
        if self.high is not None and value > self.high:
            raise ConfigError(f"{name}: {value} is above {self.high}")
        return value


CONFIG = Own("", "Name of a shipped configuration, or path of a YAML file.")
"""The parameter `config`, which every node has besides its own parameters."""


def _choices(kind: Any) -> list[str]:
    """Return the names that an item of a list may have; none where it is not a name."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [member.value for member in kind]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _constraints(field: FieldInfo, limits: dict[str, Any]) -> str:
    """Say in words what a ROS range cannot express."""
    if get_origin(field.annotation) is Literal:
        return "One of " + ", ".join(map(str, get_args(field.annotation))) + "."
    if get_origin(field.annotation) is tuple:
        return _of_a_list(get_args(field.annotation), limits)
    if "min_length" in limits:
        return "Not empty."
    strict = {"gt": "Above", "lt": "Below"}
    words = [f"{word} {limits[name]}" for name, word in strict.items() if name in limits]
    return ", ".join(words)


def _of_a_list(items: tuple[Any, ...], limits: dict[str, Any]) -> str:
    """Say in words how long a list is and what it contains."""
    if choices := _choices(items[0]):
        return "Any of " + ", ".join(choices) + "."
    any_length = items[-1] is Ellipsis
    if "max_length" in limits:
        words = f"At most {limits['max_length']}"
    elif "min_length" in limits:
        words = "At least one"
    else:
        words = "Any number" if any_length else str(len(items))
    return f"{words}, each from 1 to {WIDEST}." if items[0] is Width else f"{words}."


def describe(field: FieldInfo, read_only: bool) -> ParameterDescriptor:
    """Return the ROS description of a setting."""
    unit, limits = config.unit(field), config.limits(field)
    descriptor = ParameterDescriptor(
        description=f"{field.description} [{unit}]" if unit else str(field.description),
        additional_constraints=_constraints(field, limits),
        read_only=read_only,
    )
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is None and high is None:
        return descriptor
    if field.annotation is int:
        # A strict bound on a whole number equals an inclusive bound on the next one.
        bounds = (
            _INTEGER_BOUNDS[0] if low is None else low + ("gt" in limits),
            _INTEGER_BOUNDS[1] if high is None else high - ("lt" in limits),
        )
        descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1])]
    elif field.annotation is float:
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=_FLOAT_BOUNDS[0] if low is None else float(low),
                to_value=_FLOAT_BOUNDS[1] if high is None else float(high),
            )
        ]
    return descriptor


class ConfiguredNode(Node):
    """A node whose parameters are the settings of some sections.

    `config` holds every section, including the values that the process was started with.
    """

    def __init__(
        self,
        node_name: str,
        sections: Iterable[str] = SECTIONS,
        *,
        settable: Iterable[str] = (),
        own: Mapping[str, tuple[Any, ...]] | None = None,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Declare the settings of `sections`; raises ConfigError naming what is wrong.

        `own` adds parameters of the node that are not settings: name to the fields of an `Own`.
        `settable` names what can change while the node runs: settings (`section.setting`), whose
        change is handed to `change_settings`, and own parameters (`change_own`).
        """
        try:
            super().__init__(
                node_name,
                context=context,
                parameter_overrides=parameter_overrides,
                automatically_declare_parameters_from_overrides=True,
            )
        except runtime.RCLError as error:
            raise runtime.no_ros(error) from None
        self._settable = frozenset(settable)
        self._own = frozenset(own or {})
        try:
            self._declare(tuple(sections), own or {})
        except ConfigError:
            self.destroy_node()
            raise
        self.add_on_set_parameters_callback(self._set_parameters_callback)

    def change_settings(self, new: Config) -> None:
        """Apply changed settings; raise ConfigError to refuse them."""

    def change_own(self, values: Mapping[str, Any]) -> None:
        """Apply changed parameters that are not settings; raise ConfigError to refuse them."""

    def _declare(self, sections: tuple[str, ...], own: Mapping[str, tuple[Any, ...]]) -> None:
        given = self._take_overrides()
        for name, fields in {"config": CONFIG, **own}.items():
            parameter = Own(*fields)
            value = parameter.checked(name, given.pop(name, parameter.default))
            descriptor = parameter.descriptor(read_only=name not in self._settable)
            self.declare_parameter(name, value, descriptor, ignore_override=True)
        file = self.get_parameter("config").value
        base = config.load(file, self.get_fully_qualified_name()) if file else Config()
        self.config = config.override(base, given, f"node {self.get_name()}")
        for section in sections:
            self._declare_section(section)

    def _take_overrides(self) -> dict[str, Any]:
        """Undeclare and return everything the process was started with that is not ROS's own."""
        given = {
            name: parameter.value
            for name, parameter in self.get_parameters_by_prefix("").items()
            if name not in _ROS_PARAMETERS and not name.startswith(_ROS_PARAMETER_GROUPS)
        }
        for name in given:
            self.undeclare_parameter(name)
        return given

    def _declare_section(self, section: str) -> None:
        settings = getattr(self.config, section)
        values = settings.model_dump(mode="json")
        for setting, field in type(settings).model_fields.items():
            name = f"{section}.{setting}"
            descriptor = describe(field, read_only=name not in self._settable)
            self.declare_parameter(name, values[setting], descriptor, ignore_override=True)

    def _set_parameters_callback(self, parameters: list[Parameter]) -> SetParametersResult:
        values = {
            parameter.name: parameter.value
            for parameter in parameters
            if parameter.name in self._settable
        }
        own = {name: values.pop(name) for name in self._own & values.keys()}
        try:
            new = config.override(self.config, values, "the new value") if values else self.config
            if values:
                self.change_settings(new)
            if own:
                self.change_own(own)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.config = new
        return SetParametersResult(successful=True)


class ConfiguredLifecycleNode(LifecycleNodeMixin, ConfiguredNode):
    """A configured node that is also a managed (lifecycle) node."""

    def __init__(self, node_name: str, sections: Iterable[str] = SECTIONS, **options: Any) -> None:
        """Declare the settings as `ConfiguredNode` does; the node begins unconfigured."""
        ConfiguredNode.__init__(self, node_name, sections, **options)
        LifecycleNodeMixin.__init__(self)

    def destroy_node(self) -> None:
        """Leave the graph."""
        super().destroy_node()
        # rclpy forgets it here, and it keeps the node in the graph for as long as it lives.
        self.__dict__.pop("_state_machine", None)
