"""``python -m tests.lab.api`` renews ``tests/public_api.txt``.

The public interface as text: names, signatures and defaults, so that a change
of it is seen in a review, and is made on purpose.
"""

from __future__ import annotations

import dataclasses
import enum
from importlib import import_module
import inspect
from pathlib import Path
from typing import Any
from typing import Iterator

import sqla_smartpool
from sqla_smartpool.settings import Settings

FILE = Path(__file__).parents[1] / "public_api.txt"
#: the modules that users import from, with the names where there is no
#: ``__all__``
MODULES: dict[str, tuple[str, ...]] = {
    "sqla_smartpool": (),
    "sqla_smartpool.integrations.opentelemetry": ("instrument",),
    "sqla_smartpool.integrations.prometheus": ("PoolCollector",),
    "sqla_smartpool.integrations.status": ("asgi_app", "wsgi_app"),
    "sqla_smartpool.plugin": ("SmartPoolPlugin",),
    "sqla_smartpool.testing": (),
    "pytest_sqla_smartpool": (
        "smartpool_clock",
        "smartpool_kill_idle",
        "smartpool_outage",
        "smartpool_slow_connects",
    ),
}
#: what the rooms of the pool call on each other, and nobody else
_INTERNAL = {
    *("abandon", "begin_anew", "can_ping", "checks_by_event", "count"),
    *("enter_loop", "in_process", "inline", "label", "may_touch", "trace"),
    *("may_open_in_background", "settings", "take_notes", "watch_waits"),
    *("call_later", "current_job", "goes_on", "waiting"),
}
_DEFAULTS = {
    field.name: field.default for field in dataclasses.fields(Settings)
}


def described() -> str:
    """The public interface, one name a line."""
    lines: list[str] = []
    for module, names in MODULES.items():
        found = import_module(module)
        lines += ["", module, "=" * len(module)]
        for name in sorted(names or found.__all__):
            lines += ["", *_described(name, getattr(found, name))]
    return "\n".join(lines[1:]) + "\n"


def _described(name: str, thing: Any) -> Iterator[str]:
    if not isinstance(thing, type):
        # a fixture is only what it is called
        function = inspect.isfunction(thing)
        yield f"{name}{_signature(thing) if function else ''}"
        return
    yield f"class {name}({', '.join(_bases(thing))})"
    if issubclass(thing, enum.Enum):
        yield from (f"    {each.name} = {each.value!r}" for each in thing)
        return
    if dataclasses.is_dataclass(thing):
        yield from map(_field, dataclasses.fields(thing))
    elif hasattr(thing, "_fields"):
        for each, hint in thing.__annotations__.items():
            yield f"    {each}: {getattr(hint, '__forward_arg__', hint)}"
    elif "__init__" in vars(thing):
        yield f"    __init__{_signature(thing.__init__)}"
    for member in sorted(_members(thing)):
        yield f"    {_member(member, inspect.getattr_static(thing, member))}"


def _bases(thing: type) -> Iterator[str]:
    """What one may take it for: the nearest that users know."""
    seen: list[type] = []
    for base in thing.__mro__[1:-1]:
        ours = base.__module__.startswith("sqla_smartpool.")
        if ours and not hasattr(sqla_smartpool, base.__name__):
            continue
        if not any(issubclass(each, base) for each in seen):
            seen.append(base)
            yield base.__name__


def _field(field: dataclasses.Field[Any]) -> str:
    default = field.default
    shown = "" if default is dataclasses.MISSING else f" = {default!r}"
    return f"    {field.name}: {field.type}{shown}"


def _members(thing: type) -> set[str]:
    """What a class has of ours, inherited or not."""
    fields = set(getattr(thing, "_fields", ()))
    if dataclasses.is_dataclass(thing):
        fields |= {field.name for field in dataclasses.fields(thing)}
    return {
        name
        for base in thing.__mro__
        if base.__module__.startswith("sqla_smartpool")
        for name, value in vars(base).items()
        if not name.startswith("_")
        and (callable(value) or isinstance(value, (property, staticmethod)))
        and name not in fields | _INTERNAL
    }


def _member(name: str, found: Any) -> str:
    if isinstance(found, property):
        return f"{name}: {inspect.get_annotations(found.fget)['return']}"
    function = getattr(found, "__func__", found)
    wrapped = inspect.iscoroutinefunction(function)
    return f"{'async ' if wrapped else ''}{name}{_signature(function)}"


def _signature(function: Any) -> str:
    """Not ``str()`` of it, which each Python writes otherwise."""
    signature = inspect.signature(function)
    shown: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name.startswith("_"):
            continue
        only = parameter.kind is parameter.KEYWORD_ONLY
        if only and "*" not in "".join(shown):
            shown.append("*")
        shown.append(_parameter(parameter))
    returns = signature.return_annotation
    end = "" if returns is signature.empty else f" -> {returns}"
    return f"({', '.join(shown)}){end}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
    text = stars.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {parameter.annotation}"
    default = parameter.default
    if default is parameter.empty:
        return text
    if repr(default) == "default":  # what the pool takes then
        if parameter.name not in _DEFAULTS:
            return f"{text} = (another argument)"
        default = _DEFAULTS[parameter.name]
    return f"{text} = {default!r}"


if __name__ == "__main__":
    FILE.write_text(described(), encoding="utf-8")
    print(f"written: {FILE}")
