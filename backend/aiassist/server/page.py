"""The page of the API: plain HTML made from its OpenAPI description, with nothing from elsewhere."""

from __future__ import annotations

import re
from collections import defaultdict
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem 1.5rem 4rem;
       color: #1c1c1e }
h2 { border-bottom: 1px solid #d1d1d6; margin-top: 2.5rem }
code { background: #f2f2f7; border-radius: 3px; padding: 0 .25em }
details { border: 1px solid #d1d1d6; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer }
summary b { display: inline-block; width: 4.5rem; color: #0a5bb5 }
summary span { color: #636366 }
summary > code { background: none; font-weight: 600 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 }
td { padding: .15rem .8rem .15rem 0; vertical-align: top }
td:first-child { white-space: nowrap }
.need::after { content: " *"; color: #c00 }
"""


def api_page(description: dict) -> str:
    """A page of all routes, by tag, with parameters, bodies and replies.

    Parameters
    ----------
    description : dict
        OpenAPI 3.1, as FastAPI makes it.
    """
    schemas = description.get("components", {}).get("schemas", {})
    groups: dict[str, list[str]] = defaultdict(list)
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            groups[(route.get("tags") or ["other"])[0]].append(_route(method, path, route, schemas))
    about = "".join(f"<p>{_text(part)}</p>" for part in description["info"]["description"].strip().split("\n\n"))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in groups.items())
    title = f"{description['info']['title']} {description['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f'<body><h1>{escape(title)}</h1>{about}<p>As JSON: <a href="openapi.json">openapi.json</a>. '
        f"A star marks what must be there.</p>{body}</body></html>"
    )


def _route(method: str, path: str, route: dict, schemas: dict) -> str:
    parts = [f"<p>{_text(route['description'])}</p>"] if "description" in route else []
    if route.get("parameters"):
        parts.append(_table([_parameter(parameter, schemas) for parameter in route["parameters"]]))
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body, <code>{escape(kind)}</code></p>{_fields(content.get('schema', {}), schemas)}")
    replies = [_row(status, "", reply.get("description", ""), False) for status, reply in route["responses"].items()]
    parts.append(f"<p>Replies</p>{_table(replies)}")
    if not route.get("security"):
        parts.append("<p>Open to all: needs no token.</p>")
    head = f"<b>{method.upper()}</b><code>{escape(path)}</code> <span>{_text(route.get('summary', ''))}</span>"
    return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _parameter(parameter: dict, schemas: dict) -> str:
    schema = parameter.get("schema", {})
    text = parameter.get("description") or schema.get("description", "")
    return _row(parameter["name"], f"{_kind(schema, schemas)}, {parameter['in']}", text, parameter.get("required"))


def _fields(schema: dict, schemas: dict) -> str:
    schema = _resolved(schema, schemas)
    required = schema.get("required", [])
    rows = [
        _row(name, _kind(field, schemas), field.get("description", ""), name in required)
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(rows) if rows else ""


def _resolved(schema: dict, schemas: dict) -> dict:
    return schemas.get(schema["$ref"].rsplit("/", 1)[1], {}) if "$ref" in schema else schema


def _kind(schema: dict, schemas: dict) -> str:
    """A type in words."""
    if "$ref" in schema:
        inner = _resolved(schema, schemas).get("properties", {})
        return "{" + ", ".join(inner) + "}"
    if "anyOf" in schema:
        return " or ".join(_kind(one, schemas) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}), schemas)}"
    return str(schema.get("type", "any"))


def _row(name, kind: str, text: str, required) -> str:
    need = ' class="need"' if required else ""
    return f"<tr><td><code{need}>{escape(str(name))}</code></td><td>{escape(kind)}</td><td>{_text(text)}</td></tr>"


def _table(rows: list[str]) -> str:
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _text(text: str) -> str:
    """Text with `code` and *stress* as HTML."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", text)
