"""Render `{{ A.items[0].name | default("y") }}` in configs: look-ups into upstream outputs only.

A string that is exactly one template takes the value as it is, whatever its JSON type. Inside other
text a string goes in as it is and any other value as compact JSON. What was rendered is data: it
is never searched for templates again. `{{ "{{" }}` writes two braces that are no template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from flowd.errors import Problem, TemplateError
from flowd.workflow import exact_json
from flowd.workflow.exact_json import InexactNumber
from flowd.workflow.json_size import JsonSizes
from flowd.workflow.secret_places import SecretPlace, find_secrets

OPENING = "{{"
# `{{ input.x }}` reads the input of the execution, unless a node has this name.
INPUT = "input"
# What the config of a node with `map` reads of the item it runs for, and of its place in the list.
ITEM, INDEX = "item", "index"
# What the templates of one config may put into it, in bytes of JSON.
RENDERED_BYTES_MAX = 16 * 1024 * 1024
# A filter makes of a byte at most six, as JSON does of a control character.
_FILTER_GROWTH_MAX = 6
KEYS_SHOWN_MAX = 20
TEXT_SHOWN_MAX = 64

Outputs = Mapping[str, Any]
Render = Callable[[Outputs], Any]

_STRING = r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'"
_NODE_ID = re.compile(r"\s*([A-Za-z0-9_][A-Za-z0-9_-]{0,127})(?![A-Za-z0-9_-])")
_LITERAL_TEXT = re.compile(rf"\s*({_STRING})")
_STEP = re.compile(rf"\.([\w-]+)|\[\s*(\d{{1,9}})\s*\]|\[\s*({_STRING})\s*\]")
_FILTER = re.compile(r"\s*\|\s*([A-Za-z_]\w*)")
_ARGUMENT = re.compile(
    rf"\s*\(\s*({_STRING}|-?\d{{1,18}}(?:\.\d{{1,18}})?(?:[eE][+-]?\d{{1,3}})?|true|false|null)\s*\)",
    re.DOTALL,
)
_CLOSING = re.compile(r"\s*\}\}")
_PLAIN_KEY = re.compile(r"[\w-]+")


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json_text(value)


def _urlencode(value: Any) -> str:
    return quote(_text(value), safe="")


FILTERS: Mapping[str, Callable[[Any], str]] = {"json": _json_text, "urlencode": _urlencode}


class MalformedTemplate(TemplateError):
    """A `{{` that begins no valid template; `position` is where reading may go on."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(reason)
        self.position = position


@dataclass(frozen=True, slots=True)
class Template:
    """One `{{ … }}`: where to look, what to take when nothing is there, what to make of it.

    `node_id` is None for a literal, which is then the fallback. A value that was found passes all
    the filters, the fallback only those written after its `default`.
    """

    node_id: str | None
    steps: tuple[str | int, ...] = ()
    filters: tuple[Callable[[Any], str], ...] = ()
    fallback: Any = None
    fallback_filters: tuple[Callable[[Any], str], ...] | None = None

    @property
    def is_whole(self) -> bool:
        """It puts in an output as it is."""
        return not (self.steps or self.filters) and self.fallback_filters is None

    def size_max(self, sizes: Mapping[str, int]) -> int:
        """How many bytes of JSON it may put in, when all outputs are as large as these."""
        size = 0 if self.node_id is None else sizes.get(self.node_id, 0)
        if isinstance(self.fallback, str):
            size = max(size, len(self.fallback))
        for _ in self.filters:
            size *= _FILTER_GROWTH_MAX
        return size

    def render(self, outputs: Outputs) -> Any:
        """What it puts in. Raises TemplateError."""
        return _compile_piece(self)(outputs)


def parse_text(text: str) -> list[str | Template]:
    """Split a text into literal pieces and templates; raises MalformedTemplate at a flaw."""
    pieces: list[str | Template] = []
    position = 0
    while (start := text.find(OPENING, position)) >= 0:
        if start > position:
            pieces.append(text[position:start])
        template, position = _parse_template(text, start + len(OPENING))
        pieces.append(template)
    if position < len(text):
        pieces.append(text[position:])
    return pieces


def _parse_template(text: str, position: int) -> tuple[Template, int]:
    """Read one template from behind its `{{` to behind its `}}`."""
    if literal := _LITERAL_TEXT.match(text, position):
        value = unquote(literal[1], literal.start(1))
        return Template(None, fallback=value, fallback_filters=()), _close(text, literal.end())
    found = _NODE_ID.match(text, position)
    if not found:
        raise MalformedTemplate(
            'expected a node id; write {{ node.key }}, or {{ "{{" }} for two braces',
            position,
        )
    steps, position = _parse_steps(text, found.end())
    filters: list[Callable[[Any], str]] = []
    default: tuple[Any, int] | None = None
    while name := _FILTER.match(text, position):
        position = name.end()
        if name[1] == "default":
            value, position = _parse_argument(text, position)
            # A second default can only see what the first one put there.
            default = default or (value, len(filters))
        elif name[1] in FILTERS:
            filters.append(FILTERS[name[1]])
        else:
            known = ", ".join(("default", *FILTERS))
            raise MalformedTemplate(
                f"unknown filter {abridge(name[1])}; there is {known}", position
            )
    position = _close(text, position)
    if default is None:
        return Template(found[1], steps, tuple(filters)), position
    fallback, passed = default
    remaining = tuple(filters[passed:])
    return Template(found[1], steps, tuple(filters), fallback, remaining), position


def _parse_steps(text: str, position: int) -> tuple[tuple[str | int, ...], int]:
    steps: list[str | int] = []
    while step := _STEP.match(text, position):
        key, index, quoted = step.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(key if quoted is None else unquote(quoted, position))
        position = step.end()
    return tuple(steps), position


def _parse_argument(text: str, position: int) -> tuple[Any, int]:
    argument = _ARGUMENT.match(text, position)
    if not argument:
        raise MalformedTemplate(
            'default needs one value in brackets, such as default("none") or default(0)', position
        )
    written = argument[1]
    if written[0] in "\"'":
        return unquote(written, position), argument.end()
    try:
        return exact_json.loads(written.encode()), argument.end()
    except InexactNumber as error:
        raise MalformedTemplate(f"{error}; write it as a string", position) from None
    except ValueError:
        raise MalformedTemplate(f"{abridge(written)} is not a JSON number", position) from None


def unquote(written: str, position: int) -> str:
    """The string between its quotes, with JSON's escapes and `\\'`."""
    body = written[1:-1]
    if "\\" not in body:
        return body
    if written[0] == "'":
        body = body.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(orjson.loads(f'"{body}"'))
    except orjson.JSONDecodeError:
        raise MalformedTemplate(f"bad escape in the string {abridge(written)}", position) from None


def _close(text: str, position: int) -> int:
    closing = _CLOSING.match(text, position)
    if closing:
        return closing.end()
    end = text.find("}}", position)
    if end < 0:
        # Nothing behind this can be a template either: reading goes on at the end.
        raise MalformedTemplate(
            'unterminated template; close it, or write {{ "{{" }} for two braces', len(text)
        )
    raise MalformedTemplate(
        f"cannot read {abridge(text[position : min(end, position + TEXT_SHOWN_MAX + 1)].strip())}; "
        'a template is node.key or node.items[0], with filters node.key | default("none")',
        end + 2,
    )


def abridge(text: str) -> str:
    """Quote a text that may be of any length."""
    return repr(text if len(text) <= TEXT_SHOWN_MAX else text[:TEXT_SHOWN_MAX] + "…")


class CompiledConfig:
    """A node's config, made ready for rendering when it is first used.

    `inputs` are the ids of the nodes its templates read, in order, each once; `secrets` where it
    holds `{"$secret": "NAME"}`, which rendering leaves as it is. A malformed template, which no
    config that went through the API holds, reads nothing, and rendering it says so.
    """

    __slots__ = ("_inputs", "_render", "_templates", "secrets", "source")

    def __init__(self, source: dict[str, Any]) -> None:
        self.source = source
        self._inputs: tuple[str, ...] = ()
        self._templates: tuple[Template, ...] = ()
        self._render: Render | None = None
        self.secrets: tuple[SecretPlace, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        if self._render is None:
            self._compile()
        return self._inputs

    def check_size(self, outputs: Outputs, sizes: Mapping[str, int]) -> None:
        """Raises TemplateError when the config would hold more than RENDERED_BYTES_MAX of outputs.

        `sizes` are those of the outputs as JSON. While the templates could put in all of what they
        read, nothing is measured; else each value is, and none is kept.
        """
        if sum(one.size_max(sizes) for one in self._templates) <= RENDERED_BYTES_MAX:
            return
        measured, size = JsonSizes(), 0
        for one in self._templates:
            size += one.size_max(sizes) if one.is_whole else measured.size(one.render(outputs))
            if size > RENDERED_BYTES_MAX:
                raise TemplateError(
                    f"its templates put more than {RENDERED_BYTES_MAX:,} bytes into its config; "
                    "read less of what they name, or name it less often"
                )

    def render(self, outputs: Outputs) -> dict[str, Any]:
        """The config with its templates filled in from `outputs`, {node id: output}.

        The result is the caller's to change: nothing in it is shared with the next rendering,
        except values taken whole from `outputs`. Raises TemplateError, which names the keys there
        are, when a template finds nothing and has no default.
        """
        render = self._render or self._compile()
        rendered: dict[str, Any] = render(outputs)
        return rendered

    def _compile(self) -> Render:
        inputs: dict[str, None] = {}
        render: Render
        try:
            render = _compile_object(self.source, inputs)
        except MalformedTemplate as error:
            inputs, render = {}, _refusing(str(error))
        self._inputs = tuple(inputs)
        self._templates = tuple(_templates_in(self.source)) if inputs else ()
        self.secrets = tuple(find_secrets(self.source))
        self._render = render
        return render


def _templates_in(config: dict[str, Any]) -> Iterator[Template]:
    """Every template of a config that has been compiled."""
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and OPENING in value:
            yield from (one for one in parse_text(value) if isinstance(one, Template))
        elif isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value


NO_CONFIG = CompiledConfig({})


def _refusing(reason: str) -> Render:
    def refuse(_outputs: Outputs) -> Any:
        raise TemplateError(reason)

    return refuse


def _compile_value(value: Any, inputs: dict[str, None]) -> Render | None:
    """A function that builds the value anew; None for one that never changes."""
    if isinstance(value, str):
        return _compile_text(value, inputs) if OPENING in value else None
    if isinstance(value, dict):
        return _compile_object(value, inputs)
    if isinstance(value, list):
        return _compile_array(value, inputs)
    return None


def _compile_object(source: dict[str, Any], inputs: dict[str, None]) -> Render:
    # Recursion is safe here and below: configs are at most CONFIG_LEVELS_MAX deep.
    compiled = {key: _compile_value(value, inputs) for key, value in source.items()}
    changing = [(key, render) for key, render in compiled.items() if render]
    copy = source.copy
    if not changing:
        return lambda _outputs: copy()

    def render_object(outputs: Outputs) -> dict[str, Any]:
        rendered = copy()
        for key, render in changing:
            rendered[key] = render(outputs)
        return rendered

    return render_object


def _compile_array(source: list[Any], inputs: dict[str, None]) -> Render:
    compiled = [_compile_value(value, inputs) for value in source]
    changing = [(index, render) for index, render in enumerate(compiled) if render]
    copy = source.copy
    if not changing:
        return lambda _outputs: copy()

    def render_array(outputs: Outputs) -> list[Any]:
        rendered = copy()
        for index, render in changing:
            rendered[index] = render(outputs)
        return rendered

    return render_array


def _compile_text(text: str, inputs: dict[str, None]) -> Render:
    pieces = parse_text(text)
    for piece in pieces:
        if isinstance(piece, Template) and piece.node_id is not None:
            inputs[piece.node_id] = None
    renders = [_compile_piece(piece) for piece in pieces]
    if len(renders) == 1:
        return renders[0]
    return lambda outputs: "".join([_text(render(outputs)) for render in renders])


def _compile_piece(piece: str | Template) -> Render:
    if isinstance(piece, str):
        return lambda _outputs: piece
    if piece.node_id is None:
        return lambda _outputs: piece.fallback
    if not piece.filters and piece.fallback_filters is None:
        node_id, steps = piece.node_id, piece.steps
        return lambda outputs: look_up(outputs, node_id, steps)
    return lambda outputs: _fill_in(piece, outputs)


def _fill_in(template: Template, outputs: Outputs) -> Any:
    assert template.node_id is not None
    filters = template.filters
    try:
        value = look_up(outputs, template.node_id, template.steps)
    except TemplateError:
        if template.fallback_filters is None:
            raise
        value, filters = template.fallback, template.fallback_filters
    for apply in filters:
        value = apply(value)
        # Each may double what the one before has made, and there may be hundreds of them.
        if len(value) > RENDERED_BYTES_MAX:
            raise TemplateError(f"the filters make more than {RENDERED_BYTES_MAX:,} bytes of it")
    return value


def look_up(outputs: Outputs, node_id: str, steps: tuple[str | int, ...]) -> Any:
    if node_id not in outputs:
        raise TemplateError(f"node {node_id!r} has no output")
    value = outputs[node_id]
    for depth, step in enumerate(steps):
        # The type is asked for first: a character of a text is an item in Python, not in JSON.
        if isinstance(step, str):
            is_there = isinstance(value, dict) and step in value
        else:
            is_there = isinstance(value, list) and step < len(value)
        if not is_there:
            raise TemplateError(_explain_miss(value, step, node_id, steps[:depth]))
        value = value[step]
    return value


def _explain_miss(value: Any, step: str | int, node_id: str, steps: tuple[str | int, ...]) -> str:
    """Why a step found nothing: names keys and types, never values, which may be secret."""
    place = abridge(node_id + "".join(format_step(taken) for taken in steps))
    wanted = abridge(format_step(step).removeprefix("."))
    if isinstance(value, dict) and isinstance(step, str):
        return f"{place} has no key {wanted}; {_list_keys(value)}"
    if isinstance(value, list) and isinstance(step, int):
        return f"{place} has no item {wanted}; its length is {len(value)}"
    if isinstance(value, dict):
        return f"{place} is an object, it has no item {wanted}; {_list_keys(value)}"
    return f"{place} is {describe_type(value)}, there is no {wanted} in it"


def _list_keys(value: dict[str, Any]) -> str:
    if not value:
        return "it is empty"
    shown = ", ".join(abridge(key) for key in list(value)[:KEYS_SHOWN_MAX])
    hidden = len(value) - KEYS_SHOWN_MAX
    return f"its keys are {shown}" + (f" and {hidden} more" if hidden > 0 else "")


def describe_type(value: Any) -> str:
    """The JSON type of a parsed value with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def format_step(step: str | int) -> str:
    """One step of a path as it would be written in a template."""
    if isinstance(step, int):
        return f"[{step}]"
    if _PLAIN_KEY.fullmatch(step):
        return f".{step}"
    shown = step if len(step) <= TEXT_SHOWN_MAX else step[:TEXT_SHOWN_MAX] + "…"
    return f"[{_json_text(shown)}]"


@dataclass(frozen=True, slots=True)
class Reference:
    """What reads a node, at `path`; `is_guarded` with a default; `step` is its first key."""

    path: str
    node_id: str
    is_guarded: bool = False
    step: str | int | None = None


def find_templates(config: dict[str, Any], path: str) -> Iterator[Reference | Problem]:
    """Every node a config refers to, and everything that is wrong with its templates.

    `path` is where the config stands. The order is that of the text. Any depth is fine.
    """
    pending: list[tuple[str, Any]] = [(path, config)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, str):
            if OPENING in value:
                yield from _find_in_text(value, place)
        elif isinstance(value, dict):
            for key in value:
                if OPENING in key:
                    yield Problem(
                        place,
                        "template_in_key",
                        f"template in the key name {abridge(key)}; templates work in values only",
                    )
            pending += reversed([(place + format_step(key), child) for key, child in value.items()])
        elif isinstance(value, list):
            pending += reversed([(f"{place}[{index}]", item) for index, item in enumerate(value)])


def _find_in_text(text: str, path: str) -> Iterator[Reference | Problem]:
    position = 0
    while (start := text.find(OPENING, position)) >= 0:
        try:
            template, position = _parse_template(text, start + len(OPENING))
        except MalformedTemplate as error:
            position = error.position
            shown = abridge(text[start : start + TEXT_SHOWN_MAX + 1])
            yield Problem(path, "malformed_template", f"{error} (at {shown})")
        else:
            if template.node_id is not None:
                is_guarded = template.fallback_filters is not None
                step = next(iter(template.steps), None)
                yield Reference(path, template.node_id, is_guarded, step)
