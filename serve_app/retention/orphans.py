"""Orphans: stored files that belong to no request, for example after an Ingress or a Generator was killed.

Example:
    orphans(files, records, older_than)  # names

Only files with names of this service are considered; other files in the same place are ignored.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from serve_app.jobs.records import RequestRecord
from serve_app.jobs.states import FINAL
from serve_app.outputs import StoredFile

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_OURS = re.compile(rf"(?P<request_id>{_UUID})/.+")
_LOOK = re.compile(r"\.look-[0-9a-f]{32}")  # see `OutputStore.look`


def request_of(name: str) -> str | None:
    """Return the id of the request that a file is named after; None if it is named after none."""
    found = _OURS.fullmatch(name)
    return None if found is None else found["request_id"]


def orphans(
    files: Collection[StoredFile], records: Mapping[str, RequestRecord], older_than: float
) -> Iterator[StoredFile]:
    """Yield those of `files` that no request needs; `records` are the existing requests that the files are named after.

    Files that were changed after `older_than` are not orphans: they may belong to a request that is being accepted, or
    to a render that is being published. Files of a request that has not ended are not orphans, either.
    """
    for file in files:
        request_id = request_of(file.name)
        if file.modified_at >= older_than or (request_id is None and not _LOOK.fullmatch(file.name)):
            continue
        record = None if request_id is None else records.get(request_id)
        if record is None or (record.state in FINAL and not _is_needed(file.name, record)):
            yield file


def _is_needed(name: str, record: RequestRecord) -> bool:
    """Return whether a file is an input of an ended request, its published output, or made from that."""
    if name in record.input_names:
        return True
    published = [render.output.name for render in record.renders if render.output is not None]
    return any(name == output or name.startswith(f"{output.rpartition('.')[0]}.") for output in published)
