"""Write the reference of the contract as Markdown, a page for each area, from the comments in the proto files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor, ServiceDescriptor

from contract import Contract, enums_of, messages_of, run

_SCALARS = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def generate(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield the pages, and one that lists them."""
    areas: dict[str, list[FileDescriptor]] = defaultdict(list)
    for file in contract.files():
        areas[file.name.split("/")[2]].append(file)
    homes = {
        thing.full_name: area
        for area, files in areas.items()
        for file in files
        for thing in (*messages_of(file), *enums_of(file))
    }
    for area, files in areas.items():
        yield f"{area}.md", _Page(contract, area, homes).text(files)
    index = "\n".join(f"- [{area}]({area}.md): {_services(files)}" for area, files in areas.items())
    yield "README.md", f"# Reference\n\nMade from the comments in `proto/`; change them there.\n\n{index}\n"


def _services(files: list[FileDescriptor]) -> str:
    names = [name for file in files for name in file.services_by_name]
    return ", ".join(f"`{name}`" for name in names) or "messages"


class _Page:
    def __init__(self, contract: Contract, area: str, homes: dict[str, str]) -> None:
        self._contract = contract
        self._area = area
        self._homes = homes

    def text(self, files: list[FileDescriptor]) -> str:
        services = [service for file in files for service in file.services_by_name.values()]
        messages = [message for file in files for message in messages_of(file)]
        enums = [enum for file in files for enum in enums_of(file)]
        origin = "Made from the comments in `proto/`; change them there."
        parts = [f"# {self._area}", f"Package `{files[0].package}`. {origin}"]
        parts += map(self._service, services)
        parts += map(self._message, messages)
        parts += map(self._enum, enums)
        return "\n\n".join(parts) + "\n"

    def _service(self, service: ServiceDescriptor) -> str:
        rows = []
        for method in service.methods:
            asks = ("stream " if method.client_streaming else "") + self._link(method.input_type)
            gives = ("stream " if method.server_streaming else "") + self._link(method.output_type)
            rest = "<br>".join(f"`{route.verb.upper()} {route.path}`" for route in self._contract.routes(method))
            rows.append((f"`{method.name}`", asks, gives, rest, _line(self._contract.comment(method))))
        return _section(f"service {service.name}", self._contract.comment(service)) + _table(
            ("method", "takes", "gives", "REST", ""), rows
        )

    def _message(self, message: Descriptor) -> str:
        rows = [
            (f"`{field.name}`", self._type(field), str(field.number), self._rules(field), self._said(field))
            for field in message.fields
        ]
        said = _section(_own_name(message), self._contract.comment(message))
        return said + (_table(("field", "type", "no.", "rules", ""), rows) if rows else "\n\nNo fields.")

    def _enum(self, enum: EnumDescriptor) -> str:
        rows = [(f"`{value.name}`", str(value.number), _line(self._contract.comment(value))) for value in enum.values]
        return _section(_own_name(enum), self._contract.comment(enum)) + _table(("value", "no.", ""), rows)

    def _said(self, field: FieldDescriptor) -> str:
        one_of = field.containing_oneof
        choice = f"(one of `{one_of.name}`) " if one_of is not None and not one_of.name.startswith("_") else ""
        return choice + _line(self._contract.comment(field))

    def _type(self, field: FieldDescriptor) -> str:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            key, value = inner.fields_by_name["key"], inner.fields_by_name["value"]
            return f"map of {self._type(key)} to {self._type(value)}"
        named = inner or field.enum_type
        name = self._link(named) if named is not None else f"`{_SCALARS[field.type]}`"
        return f"repeated {name}" if field.is_repeated else name

    def _link(self, thing: Descriptor | EnumDescriptor) -> str:
        home = self._homes.get(thing.full_name)
        if home is None:
            return f"`{thing.full_name}`"
        return f"[{_own_name(thing)}]({'' if home == self._area else f'{home}.md'}#{_own_name(thing).lower()})"

    def _rules(self, field: FieldDescriptor) -> str:
        return ", ".join(_rules(self._contract.extensions(field).get("buf.validate.field", {})))


def _rules(rule: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in rule.items():
        if isinstance(value, dict):
            inner = f"{before}{name} " if name in {"items", "keys", "values"} else before
            yield from _rules(value, inner)
        elif name != "ignore":
            shown = "" if value is True else f" `{value}`"
            yield f"{before}{name}{shown}".replace("|", "\\|")


def _own_name(thing: Descriptor | EnumDescriptor) -> str:
    return thing.full_name.removeprefix(f"{thing.file.package}.")


def _section(title: str, said: str) -> str:
    return f"## {title}\n\n{said}"


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    run(generate)
