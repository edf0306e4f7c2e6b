"""The header Prefer (RFC 7240): a POST waits a few seconds for its result.

async def submit(wait_s: WaitDep, ...) -> Accepted | RequestResult: ...
"""

import re
from typing import Annotated

from fastapi import Depends, Header

from serve_app.errors import HeaderInvalid

PREFER = "Prefer"
APPLIED = "Preference-Applied"
LONGEST_WAIT_S = 60
_SECONDS = re.compile(r"[0-9]{1,2}")
_WAIT = re.compile(r'wait(?:\s*=\s*"?([^"]*)"?)?', re.IGNORECASE)


async def _wait_s(
    prefer: Annotated[
        list[str] | None,
        Header(
            alias=PREFER,
            description=(
                f"`wait=N`: answer with the result if the request ends within N seconds (0 to {LONGEST_WAIT_S}); else, "
                "and where too many wait already, as usual. Other preferences have no effect."
            ),
        ),
    ] = None,
) -> int:
    """Return how many seconds the client wants to wait for the result; 0 without the header.

    Raises:
        HeaderInvalid: the value of `wait` is no valid number of seconds.
    """
    preferences = [part.strip() for line in prefer or () for part in line.split(",")]
    for preference in preferences:
        found = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if found is None:
            continue
        text = str(LONGEST_WAIT_S) if found[1] is None else found[1].strip()
        if (
            not (text.isascii() and text.isdigit() and len(text) <= len(str(LONGEST_WAIT_S)))
            or int(text) > LONGEST_WAIT_S
        ):
            raise HeaderInvalid(
                f"{PREFER}: wait must be a whole number of seconds from 0 to {LONGEST_WAIT_S}", {"header": PREFER}
            )
        return int(text)
    return 0


WaitDep = Annotated[int, Depends(_wait_s)]
