"""The description of the API, made from its operations. Source: OpenAPI 3.1.0."""

from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from workers.dashboard.api.operation import Operation
from workers.dashboard.api.operations import OPERATIONS, Accepted
from workers.dashboard.api.problems import MEDIA_TYPE, Problem

_REF = "#/components/schemas/{model}"
_ALWAYS = (
    HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE,
)  # fmt: skip
_OF_BODIES = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Becomes the run's id: a request that is repeated with it enqueues nothing again.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"},
}


class _Schema(GenerateJsonSchema):
    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Describe a union of values that ignore unknown fields: one of them may have the shape of several."""
        described = super().tagged_union_schema(schema)
        return {"anyOf" if name == "oneOf" else name: value for name, value in described.items()}


@cache
def document() -> dict[str, Any]:
    """Return the document of all operations."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Terraslot",
            "version": version("terraslot"),
            "summary": "Runs of Terraform on pools of agents: enqueue them, look at them, decide about them.",
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "of `terraslot token create`"},
                "password": {"type": "http", "scheme": "basic", "description": "of Flower's --basic-auth"},
            },
        },
        "security": [{"token": []}, {"password": []}],
    }


def _described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the scope `{operation.scope}`.",
        "parameters": [*map(_in_path, operation.parameters), *_in_query(operation, schemas)],
        "responses": _responses(operation, schemas),
    }
    if operation.takes_key:
        described["parameters"].append(_KEY)
    if operation.body is not None:
        schema = _schema(operation.body, schemas, mode="validation")
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return described


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(operation: Operation, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    schema = operation.query.model_json_schema(ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    return [{"name": name, "in": "query", "schema": field} for name, field in schema.get("properties", {}).items()]


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = _schema(operation.answer, schemas)
    media_type = "application/x-ndjson" if operation.streams else "application/json"
    found = {operation.status: {"description": operation.status.phrase, "content": {media_type: {"schema": answer}}}}
    if operation.takes_key:
        found[HTTPStatus.OK] = {**found[operation.status], "description": "It was enqueued before"}
        accepted = {"application/json": {"schema": _schema(Accepted, schemas)}}
        found[HTTPStatus.ACCEPTED] = {"description": "No worker has taken it yet", "content": accepted}
    problem = {MEDIA_TYPE: {"schema": _schema(Problem, schemas)}}
    for status in {*_ALWAYS, *operation.refusals, *(_OF_BODIES if operation.body else ())}:
        found[status] = {"description": status.phrase, "content": problem}
    return {str(int(status)): what for status, what in sorted(found.items())}


def _schema(of: Any, schemas: dict[str, Any], mode: JsonSchemaMode = "serialization") -> dict[str, Any]:
    schema = TypeAdapter(of).json_schema(ref_template=_REF, mode=mode, schema_generator=_Schema)
    schemas.update(schema.pop("$defs", {}))
    if "properties" not in schema:
        return schema
    schemas[schema["title"]] = schema
    return {"$ref": _REF.format(model=schema["title"])}
