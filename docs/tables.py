"""mkdocs hook: the reference tables are written from the code, so they cannot grow stale."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from catalogs import schema, usual_values
from tlgen.commands import enough
from tlgen.recipes import recipe
from tlgen.recipes.recipe_file import json_schema
from tlgen.scene import place_decorations


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{v}`" for v in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kinds = [_type(part) for part in field.get("anyOf", ()) if part.get("type") != "null"]
    return " or ".join(kinds) or str(field.get("type", field.get("$ref", "").rsplit("/", 1)[-1] or "any"))


def _table(model: type[BaseModel]) -> str:
    described = model.model_json_schema()
    if "properties" not in described:  # a structure may be a single word, too
        described = described["anyOf"][-1]
    rows = ["| key | type | unit | default | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in described["properties"].items():
        default = json.dumps(field["default"]) if "default" in field else "required"
        cells = [f"`{name}`", _type(field), field.get("unit", ""), default, field.get("description", "")]
        rows.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _usual_values() -> str:
    rows = ["| quantity | unit | usual | possible | why |", "| --- | --- | --- | --- | --- |"]
    for name, limits in usual_values.USUAL.items():
        ends = (f"{limits.low:g} to {limits.high:g}", f"{limits.least:g} to {limits.most:g}")
        rows.append(f"| `{name}` | {limits.unit} | {ends[0]} | {ends[1]} | {limits.why} |")
    return "\n".join(rows)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace ``{{ table NAME }}`` by the table of that model, ``{{ usual values }}`` and the like."""

    def table(match: re.Match[str]) -> str:
        name = match.group(1)
        [model] = [
            getattr(room, name) for room in (schema, recipe, place_decorations) if hasattr(room, name)
        ][:1]
        return _table(model)

    markdown = markdown.replace("{{ usual values }}", _usual_values())
    markdown = markdown.replace("{{ how much is enough }}", enough.table())
    return re.sub(r"\{\{ table (\w+) \}\}", table, markdown)


#: References of docstrings to other parts of the code, as Sphinx would resolve them.
_ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):<code>[~.]*([\w.]+)</code>")
_BLOCK = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
_CODE = re.compile(r"<code>([^<]+)</code>")
#: Words of code that are longer may break anywhere, or they would not fit onto a telephone.
_LONGEST = 32


def on_page_content(html: str, **_: Any) -> str:
    """Keep the words of inline code whole, so that no option breaks after its dashes; tidy the references."""
    html = _ROLE.sub(r"<code>\1</code>", html.replace("<code>Sentinel.UNSET</code>", ""))
    parts = _BLOCK.split(html)  # blocks of code stand at odd places
    return "".join(part if k % 2 else _CODE.sub(_whole_words, part) for k, part in enumerate(parts))


def _whole_words(code: re.Match[str]) -> str:
    words = code[1].split(" ")
    whole = (f'<span class="whole">{word}</span>' if len(word) <= _LONGEST else word for word in words)
    return f"<code>{' '.join(whole)}</code>"


def on_post_build(config: Any, **_: Any) -> None:
    """Publish the JSON schemas of recipes and of a corpus' records beside the pages."""
    record = schema.SampleRecord.model_json_schema()
    for name, content in [("recipe.schema.json", json_schema()), ("record.schema.json", record)]:
        Path(config["site_dir"], name).write_text(json.dumps(content, indent=1))
