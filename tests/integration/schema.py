"""As much of JSON Schema 2020-12 as api/openapi.json uses; a keyword it does not know is an error.

    Schemas(document).check(value, schema)    AssertionError with the path of what is wrong

SPDX-License-Identifier: MIT
"""

import datetime
import re
import uuid

ANNOTATIONS = {"description", "examples", "example", "default", "title", "contentEncoding",
               "contentMediaType", "deprecated"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
         "number": (int, float)}


def has_type(value, name):
    """A boolean is no number, and an integer is written as one."""
    if name == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, TYPES[name])


def has_format(text, name):
    """The formats of strings."""
    if name == "uuid":
        return str(uuid.UUID(text)) == text
    if name == "date-time":
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    assert name == "uri-reference", name
    return re.fullmatch(r"[!-~]+", text) is not None


class Schemas:
    """The schemas of one document."""

    def __init__(self, document):
        self.document = document

    def resolve(self, node):
        """The node, or what its $ref names (with the node's own keywords beside it)."""
        while "$ref" in node:
            target = self.document
            assert node["$ref"].startswith("#/"), node
            for step in node["$ref"][2:].split("/"):
                target = target[step.replace("~1", "/").replace("~0", "~")]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return node

    def check(self, value, schema, at="$"):
        """Raises if the value is not as the schema says."""
        schema = self.resolve(schema)
        for keyword, wanted in schema.items():
            if keyword not in ANNOTATIONS:
                getattr(self, f"on_{keyword}")(value, wanted, at, schema)

    def on_type(self, value, wanted, at, _):
        """type"""
        names = wanted if isinstance(wanted, list) else [wanted]
        assert any(has_type(value, name) for name in names), f"{at}: {value!r} is no {wanted}"

    def on_format(self, value, wanted, at, _):
        """format"""
        if isinstance(value, str):
            assert has_format(value, wanted), f"{at}: {value!r} is no {wanted}"
        elif isinstance(value, int):
            assert wanted == "int64" and -1 << 63 <= value < 1 << 63, f"{at}: {value}"

    def on_const(self, value, wanted, at, _):
        """const"""
        assert value == wanted, f"{at}: {value!r} is not {wanted!r}"

    def on_enum(self, value, wanted, at, _):
        """enum"""
        assert value in wanted, f"{at}: {value!r} is none of {wanted}"

    def on_required(self, value, wanted, at, _):
        """required"""
        missing = set(wanted) - set(value)
        assert not missing, f"{at}: {missing} missing"

    def on_properties(self, value, wanted, at, _):
        """properties"""
        for name in set(wanted) & set(value):
            self.check(value[name], wanted[name], f"{at}.{name}")

    def on_additionalProperties(self, value, wanted, at, schema):  # pylint: disable=invalid-name
        """additionalProperties: false"""
        assert wanted is False
        unknown = set(value) - set(schema["properties"])
        assert not unknown, f"{at}: {unknown} not allowed"

    def on_items(self, value, wanted, at, _):
        """items"""
        for index, item in enumerate(value):
            self.check(item, wanted, f"{at}[{index}]")

    def on_allOf(self, value, wanted, at, _):  # pylint: disable=invalid-name
        """allOf"""
        for schema in wanted:
            self.check(value, schema, at)

    def on_minimum(self, value, wanted, at, _):
        """minimum"""
        assert value >= wanted, f"{at}: {value} < {wanted}"

    def on_maximum(self, value, wanted, at, _):
        """maximum"""
        assert value <= wanted, f"{at}: {value} > {wanted}"

    def on_minLength(self, value, wanted, at, _):  # pylint: disable=invalid-name
        """minLength"""
        assert len(value) >= wanted, f"{at}: {value!r} is too short"

    def on_maxLength(self, value, wanted, at, _):  # pylint: disable=invalid-name
        """maxLength"""
        assert len(value) <= wanted, f"{at}: {value!r} is too long"

    def on_minItems(self, value, wanted, at, _):  # pylint: disable=invalid-name
        """minItems"""
        assert len(value) >= wanted, f"{at}: has {len(value)} items"

    def on_maxItems(self, value, wanted, at, _):  # pylint: disable=invalid-name
        """maxItems"""
        assert len(value) <= wanted, f"{at}: has {len(value)} items"

    def on_uniqueItems(self, value, wanted, at, _):  # pylint: disable=invalid-name
        """uniqueItems"""
        assert not wanted or all(item not in value[:i] for i, item in enumerate(value)), at

    def on_pattern(self, value, wanted, at, _):
        """pattern"""
        assert re.search(wanted, value), f"{at}: {value!r} is not like {wanted}"
