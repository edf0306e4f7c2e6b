"""Multipart forms (RFC 7578) as the JSON that they stand for, in the spelling of OpenAI's client libraries.

    prompt=a fox, loras[][path]=h.safetensors, loras[][path]=l.safetensors, sample_steps=8
    -> {"prompt": "a fox", "loras": [{"path": "h.safetensors"}, {"path": "l.safetensors"}], "sample_steps": 8}

A form has texts only, so a text that a field of numbers or truth values gets is read as JSON, and so is `loras` itself.
"""

import asyncio
import base64
import json
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from serve_app.api.schemas.bodies import LoraItem
from serve_app.api.schemas.videos import VideoRequest
from serve_app.echo import cut
from serve_app.errors import BodyDamaged, FormInvalid

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]

_MOST_FIELDS = 500
_SHORT = 64 << 10  # bytes, read in a millisecond
_NAME_LENGTH = 100
_NESTED = re.compile(r"(?P<field>\w+)(?P<of_list>\[\d*\])?(?:\[(?P<key>\w+)\])?", re.ASCII)


async def read_form(body: bytes, headers: Headers) -> Json:
    """Return what the form in `body` says. A long one is read in a thread, as an image has megabytes.

    Raises:
        BodyDamaged: it is no form.
        FormInvalid: a field has a name that stands for nothing, or the fields of a list do not go together.
    """
    if len(body) <= _SHORT:
        return await _read(body, headers)
    return await asyncio.to_thread(lambda: asyncio.run(_read(body, headers)))


async def _read(body: bytes, headers: Headers) -> Json:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, chunks(), max_files=1, max_fields=_MOST_FIELDS, max_part_size=len(body))
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise BodyDamaged(f"the body is no valid multipart form: {cut(str(error))}") from error
    try:
        return await _content(form)
    finally:
        await form.close()


async def _content(form: FormData) -> dict[str, Json]:
    content: dict[str, Json] = {}
    lists: defaultdict[str, defaultdict[str, list[Json]]] = defaultdict(lambda: defaultdict(list))
    for name, value in form.multi_items():
        found = _NESTED.fullmatch(name)
        if found is None:
            raise FormInvalid(f"a form has no field {cut(name, _NAME_LENGTH)!r}", {"field": cut(name, _NAME_LENGTH)})
        field, key = found["field"], found["key"]
        typed = await _data_url(value) if isinstance(value, UploadFile) else _typed(field, key, value)
        if found["of_list"] and key:
            lists[field][key].append(typed)
        elif found["of_list"]:
            _listed(content, field).append(typed)
        elif key:
            _nested(content, field)[key] = typed
        elif field in content:
            raise _mixed(field)
        else:
            content[field] = typed
    if both := sorted(content.keys() & lists.keys()):
        raise _mixed(both[0])
    return {**content, **{field: _zipped(field, columns) for field, columns in lists.items()}}


def _listed(content: dict[str, Json], field: str) -> list[Json]:
    found = content.setdefault(field, [])
    if not isinstance(found, list):
        raise _mixed(field)
    return found


def _nested(content: dict[str, Json], field: str) -> dict[str, Json]:
    found = content.setdefault(field, {})
    if not isinstance(found, dict):
        raise _mixed(field)
    return found


def _mixed(field: str) -> FormInvalid:
    return FormInvalid(f"the form has {field} several times, or in several spellings; send it once", {"field": field})


async def _data_url(file: UploadFile) -> Json:
    content = base64.b64encode(await file.read()).decode()
    return {"image_url": f"data:{file.content_type or 'application/octet-stream'};base64,{content}"}


def _zipped(field: str, columns: Mapping[str, list[Json]]) -> list[Json]:
    """Return the items of a list whose fields came one after another, `loras[][path]` twice, `loras[][...]` twice."""
    if len({len(values) for values in columns.values()}) > 1:
        raise FormInvalid(
            f"the form does not say which item of {field} each value belongs to; give every item the same keys, or "
            f"send {field} as one JSON text",
            {"field": field},
        )
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _typed(field: str, key: str | None, text: str) -> Json:
    """Return a text of the form as what its field takes; where it is none, as the text, which is then refused."""
    texts = _TEXTS if key is None else _LORA_TEXTS if field == "loras" else frozenset({key})
    if (key or field) in texts:
        return text
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value


def _texts(model: type[VideoRequest] | type[LoraItem]) -> frozenset[str]:
    """Return the fields of `model` that take a text."""
    fields = model.model_json_schema()["properties"]
    return frozenset(name for name, field in fields.items() if not _takes_json(field))


def _takes_json(field: Mapping[str, object]) -> bool:
    kinds = field.get("anyOf", [field])
    types = {kind.get("type") for kind in kinds if isinstance(kind, Mapping)} if isinstance(kinds, list) else set()
    return bool(types & {"integer", "number", "boolean", "array"})


_TEXTS = _texts(VideoRequest) | {"seconds"}
_LORA_TEXTS = _texts(LoraItem)
