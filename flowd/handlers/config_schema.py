"""The JSON Schema of a handler's config, for whoever writes workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

if TYPE_CHECKING:
    from pydantic import BaseModel


class _Lenient(GenerateJsonSchema):
    """What JSON Schema has no word for, such as a class of the user's own, may be anything."""

    def handle_invalid_for_json_schema(self, *_: Any) -> JsonSchemaValue:
        return {}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(schema_generator=_Lenient)
