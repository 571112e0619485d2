"""The description of the API is valid, and true."""

import json

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from serving.openapi import openapi

DOCUMENT = openapi()
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATIONS = [one for methods in DOCUMENT["paths"].values() for one in methods.values()]


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if "$ref" in node else set()
        return own.union(*(references(value) for value in node.values()))
    return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()


def test_every_schema_is_one():
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_every_schema_is_used():
    assert references(DOCUMENT) == {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_every_operation_has_a_name_a_summary_and_answers():
    assert DOCUMENT["openapi"].startswith("3.1.")
    names = [operation["operationId"] for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    for operation in OPERATIONS:
        assert operation["summary"]
        assert "200" in operation["responses"]
        assert all(answer["description"] for answer in operation["responses"].values())


def test_it_describes_the_paths_that_there_are(served):
    assert served.http.get("/openapi.json").json() == json.loads(json.dumps(DOCUMENT))
    for path, methods in DOCUMENT["paths"].items():
        (method,) = methods
        concrete = path.replace("{service}", "spending")
        answer = served.http.request(method.upper(), concrete, json={"entities": []} if method == "post" else None)
        described = methods[method]["responses"][str(answer.status_code)]["content"]
        assert answer.headers["content-type"].split(";")[0] in described


@pytest.mark.parametrize(
    ("method", "path", "request_", "schema"),
    [
        ("POST", "/v1/features/spending", {"entities": [{"user": "ann"}, {"user": "nobody"}]}, "FeatureResponse"),
        ("POST", "/v1/features/spending", {"entities": [{"user": 5}]}, "Failure"),
        ("POST", "/v1/features/nothing", {"entities": []}, "Failure"),
        ("GET", "/v1/services", None, "Listing"),
        ("GET", "/readyz", None, "Readiness"),
        ("GET", "/healthz", None, "Health"),
    ],
)
def test_answers_are_as_described(served, method, path, request_, schema):
    if request_ is not None:
        validator("FeatureRequest").validate(request_)
    validator(schema).validate(served.http.request(method, path, json=request_).json())


@pytest.mark.parametrize(
    "request_", [{}, {"entities": "ann"}, {"entities": [], "more": 1}, {"entities": [], "leading_edge": "x"}]
)
def test_requests_that_are_refused_are_described_as_wrong(served, request_):
    assert not validator("FeatureRequest").is_valid(request_)
    assert served.http.post("/v1/features/spending", json=request_).status_code == 400
