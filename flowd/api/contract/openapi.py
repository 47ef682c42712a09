"""The OpenAPI document, made from the route table and the models: nothing is written twice."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.routing import BaseRoute

from flowd import __version__
from flowd.api.contract.problems import KINDS
from flowd.api.contract.problems import MEDIA_TYPE as PROBLEM_TYPE
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import ProblemDocument
from flowd.workflow.definition import NODE_ID_PATTERN
from flowd.workflow.ids import NAME_PATTERN

# What any request may meet.
_ALWAYS: Final = (
    "bad_request",
    "bad_host",
    "head_too_large",
    "internal",
    "stopping",
    "too_many_connections",
)
_BEHIND_THE_GATE: Final = (
    "unauthenticated",
    "forbidden",
    "rate_limited",
    "store_unavailable",
    "missing_script",
    "missing_group",
    "store_full",
    "not_replicated",
    "store_read_only",
    "corrupt_store",
    "corrupt_execution",
)
_WITH_BODY: Final = ("body_too_slow", "body_too_large")

_PATH_PARAMETERS: Mapping[str, dict[str, Any]] = {
    "execution_id": {"type": "string", "pattern": "^[0-9a-f]{24}$"},
    "node_id": {"type": "string", "pattern": NODE_ID_PATTERN},
    "name": {"type": "string", "pattern": NAME_PATTERN},
    "letter_id": {"type": "string", "pattern": "^[0-9]{1,15}-[0-9]{1,15}$"},
    "topic": {"type": "string", "pattern": "^[a-z-]{1,32}$"},
    "file": {"type": "string", "pattern": "^[0-9a-z./-]{1,80}$"},
    "handler": {"type": "string", "minLength": 1},
    "view": {"type": "string"},
}
# What a request may look like, by the name of its body's model.
_EXAMPLES: Mapping[str, Any] = {
    "WorkflowDefinition": {
        "name": "two-steps",
        "dag": {
            "nodes": [
                {"id": "A", "handler": "noop"},
                {"id": "B", "handler": "noop", "dependencies": ["A"]},
            ]
        },
    },
    "TriggerBody": {"input": {"day": "2026-01-31"}},
    "ScheduleBody": {
        "workflow": "hello",
        "cron": "30 6 * * 1-5",
        "timezone": "Europe/Berlin",
    },
    "RunScheduleBody": {"force": False},
    "BatchBody": {
        "workflows": [{"name": "one", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}]
    },
    "RunBody": {"input": {"day": "2026-01-31"}},
    "SignalBody": {"data": {"approved": True}},
    "RerunBody": {"from": "failed", "preview": True},
    "SetBody": {"members": [{"kind": "definition", "name": "report"}]},
    "ActionsBody": {"action": "rerun", "filter": {"status": ["FAILED"]}, "preview": True},
    "CancelBody": {"force": False},
}
_INTRODUCTION = """\
Workflows are submitted, triggered and looked at. Times are Unix milliseconds, in fields named \
`*_ms`.

Every error is a problem document (RFC 9457): `code` is stable, `errors` lists everything that was \
wrong. A 503 and a 429 say in `Retry-After` when the same request may be sent again.

Without tokens, flowd answers only its own machine, and anybody there. Once there is a token \
(`flowd token create`), requests carry `Authorization: Bearer <token>`. The scope of a token is \
`read`, `trigger` or `admin`; each includes the ones before it."""

_Key = tuple[type[BaseModel], JsonSchemaMode]
_Schemas = Mapping[_Key, dict[str, Any]]


def openapi_json(routes: Iterable[BaseRoute]) -> bytes:
    return orjson.dumps(openapi_document(routes))


def openapi_document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The same for the same routes, also in its order."""
    endpoints = [one for one in routes if isinstance(one, Endpoint)]
    schemas, definitions = _all_schemas(endpoints)
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    responses: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schemas, definitions)
        operation["responses"] = _responses(endpoint, schemas, responses)
        paths[documented_path(endpoint)][endpoint.method.lower()] = operation
    queries = {_name(schemas[one, "validation"]) for one in _queries(endpoints)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "flowd", "version": __version__, "description": _INTRODUCTION},
        "paths": dict(paths),
        "components": {
            "schemas": {name: one for name, one in definitions.items() if name not in queries},
            "responses": responses,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "of `flowd token create`; before the first, none is needed",
                }
            },
        },
    }


def documented_path(endpoint: Endpoint) -> str:
    """Without the kinds of its parameters, which are Starlette's."""
    return endpoint.path.replace(":path}", "}")


def problem_codes(endpoint: Endpoint) -> set[str]:
    """The codes of all problems this endpoint may answer with."""
    description = endpoint.description
    codes = {*description.problems, *_ALWAYS}
    if description.scope != "public":
        codes |= set(_BEHIND_THE_GATE)
    if endpoint.param_convertors:
        # A slash in what should be an id.
        codes.add("not_found")
    if description.query is not None:
        codes.add("invalid_request")
    if description.body is not None:
        codes |= set(_WITH_BODY)
    if endpoint.method != "GET":
        codes.add("cross_site")
    return codes


def _all_schemas(endpoints: Sequence[Endpoint]) -> tuple[_Schemas, dict[str, Any]]:
    models: dict[_Key, None] = {}
    for endpoint in endpoints:
        described = endpoint.description
        for answer in described.answers.values():
            for model in _models(answer):
                models[model, "serialization"] = None
        for taken in (described.body, described.query):
            if taken is not None:
                models[taken, "validation"] = None
    models[ProblemDocument, "serialization"] = None
    references, definitions = models_json_schema(
        list(models), by_alias=True, ref_template="#/components/schemas/{model}"
    )
    schemas = {key: references[key] for key in models}
    return schemas, _without_titles(definitions.get("$defs", {}))


def _models(
    answer: type[BaseModel] | tuple[type[BaseModel] | str, ...] | str,
) -> tuple[type[BaseModel], ...]:
    given = answer if isinstance(answer, tuple) else (answer,)
    return tuple(one for one in given if not isinstance(one, str))


def _media_types(
    answer: type[BaseModel] | tuple[type[BaseModel] | str, ...] | str,
) -> list[str]:
    given = answer if isinstance(answer, tuple) else (answer,)
    return [one.partition(";")[0] for one in given if isinstance(one, str) and one]


def _without_titles(value: Any) -> Any:
    """pydantic repeats each name as a title."""
    if isinstance(value, list):
        return [_without_titles(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_titles(item)
        for name, item in value.items()
        if name != "title" or not isinstance(item, str)
    }


def _queries(endpoints: Iterable[Endpoint]) -> set[type[BaseModel]]:
    return {one.description.query for one in endpoints if one.description.query is not None}


def _name(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _operation(
    endpoint: Endpoint, schemas: _Schemas, definitions: Mapping[str, Any]
) -> dict[str, Any]:
    described = endpoint.description
    operation: dict[str, Any] = {
        "operationId": endpoint.endpoint.__name__,
        "tags": [endpoint.endpoint.__module__.rpartition(".")[2].replace("_", " ")],
        "summary": described.summary,
    }
    if more := _rest_of_docstring(endpoint):
        operation["description"] = more
    if parameters := _parameters(endpoint, schemas, definitions):
        operation["parameters"] = parameters
    if described.body is not None:
        operation["requestBody"] = _request_body(described.body, schemas)
    operation["security"] = [] if described.scope == "public" else [{"bearer": [described.scope]}]
    return operation


def _rest_of_docstring(endpoint: Endpoint) -> str:
    text = inspect.getdoc(endpoint.endpoint) or ""
    return text.partition("\n")[2].strip()


def _parameters(
    endpoint: Endpoint, schemas: _Schemas, definitions: Mapping[str, Any]
) -> list[dict[str, Any]]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_PARAMETERS[name]}
        for name in re.findall(r"\{(\w+)", endpoint.path)
    ]
    model: dict[str, Any] = {"properties": {}}
    if (query := endpoint.description.query) is not None:
        model = definitions[_name(schemas[query, "validation"])]
        required = model.get("required", ())
        for name, schema in model["properties"].items():
            parameters.append(_query_parameter(name, schema, is_required=name in required))
    for name, text in endpoint.description.headers.items():
        # What may be said in the query as well has one form.
        alike = model["properties"].get(name.lower().replace("-", "_"), {})
        schema = {"type": "string", **{key: alike[key] for key in ("pattern",) if key in alike}}
        parameters.append({"name": name, "in": "header", "description": text, "schema": schema})
    return parameters


def _query_parameter(name: str, schema: dict[str, Any], *, is_required: bool) -> dict[str, Any]:
    schema = dict(schema)
    text = schema.pop("description", None)
    # A parameter is left out, it is never null.
    if choices := [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]:
        schema |= choices[0] if len(choices) == 1 else {"anyOf": choices}
    if schema.get("default", "") is None:
        del schema["default"]
    parameter: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
    if text:
        parameter["description"] = text
    if is_required:
        parameter["required"] = True
    if schema.get("type") == "array":
        schema["minItems"] = 1
        parameter |= {"style": "form", "explode": False}
    return parameter


def _request_body(model: type[BaseModel], schemas: _Schemas) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schemas[model, "validation"]}
    if model.__name__ in _EXAMPLES:
        content["example"] = _EXAMPLES[model.__name__]
    return {"required": not _may_be_empty(model), "content": {"application/json": content}}


def _may_be_empty(model: type[BaseModel]) -> bool:
    try:
        model.model_validate({})
    except ValidationError:
        return False
    return True


def _responses(
    endpoint: Endpoint, schemas: _Schemas, shared: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """By status; those that are problems go to `shared`, most endpoints have the same ones."""
    responses: dict[str, Any] = {str(status): one for status, one in _answers(endpoint, schemas)}
    for status, codes in _problems(endpoint):
        name = "-".join([str(status), *codes])
        shared.setdefault(name, _problem(status, codes, schemas))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return dict(sorted(responses.items()))


def _answers(endpoint: Endpoint, schemas: _Schemas) -> list[tuple[int, dict[str, Any]]]:
    answers = []
    for status, answer in endpoint.description.answers.items():
        response: dict[str, Any] = {"description": _ANSWER_TEXTS.get(status, "the answer")}
        content: dict[str, Any] = {}
        if one_of := [schemas[model, "serialization"] for model in _models(answer)]:
            schema = one_of[0] if len(one_of) == 1 else {"anyOf": one_of}
            content["application/json"] = {"schema": schema}
        content |= {one: {} for one in _media_types(answer)}
        if content:
            response["content"] = content
        answers.append((status, response))
    return answers


_ANSWER_TEXTS = {
    202: "time ran out before the end",
    204: "there is nothing more to come",
    304: "what `If-None-Match` names is still what there is",
}


def _problems(endpoint: Endpoint) -> list[tuple[int, list[str]]]:
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in sorted(problem_codes(endpoint)):
        by_status[KINDS[code].status].append(code)
    return list(by_status.items())


def _problem(status: int, codes: list[str], schemas: _Schemas) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": ", ".join(f"`{code}`" for code in codes),
        "content": {
            PROBLEM_TYPE: {
                "schema": {
                    "allOf": [
                        schemas[ProblemDocument, "serialization"],
                        {
                            "properties": {
                                "status": {"const": status},
                                "code": {"enum": codes},
                            }
                        },
                    ]
                }
            }
        },
    }
    if any(KINDS[code].retry_after_s is not None for code in codes):
        response["headers"] = {
            "Retry-After": {"description": "seconds", "schema": {"type": "string"}}
        }
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return response
