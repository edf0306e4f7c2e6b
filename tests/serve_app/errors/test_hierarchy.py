"""The error hierarchy: codes, the drawing of its branches, where errors are imported from, pickling, the body."""

import pickle
import re
from pathlib import Path

from serve_app import errors
from serve_app.errors import ClientError, LoraNotFound, ServiceError

# A line of the drawing: the class, its file, and in parentheses its status, if it is sent over HTTP.
_BRANCH = re.compile(r"^    [├└]── (\w+) +(\w+)\.py .*?(?:\((\d+)\))?$", re.MULTILINE)


def concrete(base: type[ServiceError]) -> list[type[ServiceError]]:
    below = [found for child in base.__subclasses__() for found in concrete(child)]
    return below or [base]


def branch(base: type[ServiceError]) -> list[type[ServiceError]]:
    return [base, *(found for child in base.__subclasses__() for found in branch(child))]


# Clients compare with these texts, so a class that is renamed must not change one unnoticed.
CODES = {
    "ANSWER_NOT_UNDERSTOOD",
    "ATTEMPTS_EXHAUSTED",
    "CONFIGURATION_INVALID",
    "CURSOR_INVALID",
    "CONTROL_IMAGE_INVALID",
    "CONTROL_IMAGE_LOST",
    "CONTROL_IMAGE_NOT_FOUND",
    "CONTROL_IMAGE_NOT_SUPPORTED",
    "CONTROL_IMAGE_REFUSED",
    "CONTROL_IMAGE_REQUIRED",
    "IMAGE_SOURCE_UNAVAILABLE",
    "SINGLE_CONTROL_IMAGE_ONLY",
    "PROMPT_FLAG_REFUSED",
    "DEADLINE_EXCEEDED",
    "DOWNLOAD_DAMAGED",
    "DRAFT_FIELD_REFUSED",
    "DRAFT_NOT_SERVED",
    "DRAFT_UNAVAILABLE",
    "FIELDS_INVALID",
    "GPU_TIME_EXHAUSTED",
    "HEADER_INVALID",
    "IDEMPOTENCY_CONFLICT",
    "KEY_INVALID",
    "KEY_REQUIRED",
    "LINK_INVALID",
    "LORA_CHANGED",
    "LORA_EXISTS",
    "LORA_FILE_REQUIRED",
    "LORA_INVALID",
    "LORA_NOT_FETCHED",
    "LORA_NOT_FOUND",
    "LORA_NOT_LOADED",
    "LORA_PATH_REFUSED",
    "LORA_SOURCE_UNAVAILABLE",
    "LORA_STORAGE_UNAVAILABLE",
    "MODEL_NOT_FOUND",
    "MOE_FORMAT_NOT_SUPPORTED",
    "MOE_FORMAT_REQUIRED",
    "OUTPUT_GONE",
    "OUTPUT_NOT_FOUND",
    "OUTPUT_NOT_WRITTEN",
    "OUTPUT_STORAGE_UNAVAILABLE",
    "OUT_OF_MEMORY",
    "QUEUE_FULL",
    "BODY_TOO_SLOW",
    "REFUSED_OTHERWISE",
    "RATE_EXCEEDED",
    "RENDER_FAILED",
    "RENDER_TOO_LARGE",
    "REQUEST_CANCELED",
    "SERVER_UNREACHABLE",
    "TOO_MANY_FETCHES",
    "TOO_MANY_BODIES",
    "TOO_MANY_LISTENERS",
    "TOO_MANY_OWN_LISTENERS",
    "REQUEST_NOT_ENDED",
    "REQUEST_NOT_FOUND",
    "SCOPE_REQUIRED",
    "SINGLE_LORA_ONLY",
    "SINGLE_MOE_CONFIG_ONLY",
    "SPEED_NOT_ALLOWED",
    "STORE_UNAVAILABLE",
    "TENANT_QUEUE_FULL",
    "UPLOADS_OFF",
    "WAITED_TOO_LONG",
    "WAIT_TOO_LONG",
    "VIDEO_FIELD_REFUSED",
    "FORM_INVALID",
    "WEBHOOK_REFUSED",
    "BODY_DAMAGED",
    "BODY_TOO_LARGE",
    "ENCODING_NOT_SUPPORTED",
    "MEDIA_TYPE_NOT_SUPPORTED",
    "METHOD_NOT_ALLOWED",
    "METRICS_UNAVAILABLE",
    "SERVICE_NOT_READY",
    "PATH_NOT_FOUND",
    "PROMPT_TOO_LONG",
    "RANGE_NOT_SATISFIABLE",
}


def test_every_code_belongs_to_one_error() -> None:
    assert sorted(error.code for error in concrete(ServiceError)) == sorted(CODES)


def test_the_drawing_has_every_branch_with_its_file_and_its_status() -> None:
    drawn = {
        (name, f"serve_app.errors.{file}", int(status or 500))
        for name, file, status in _BRANCH.findall(errors.__doc__ or "")
    }
    assert drawn == {(child.__name__, child.__module__, child.status) for child in ServiceError.__subclasses__()}


def test_a_branch_lies_in_one_file_and_has_one_status() -> None:
    for child in ServiceError.__subclasses__():
        assert {found.__module__ for found in branch(child)} == {child.__module__}
        if child is not ClientError:  # whose FieldsInvalid stands for an answer of the service
            assert {found.status for found in branch(child)} == {child.status}


def test_every_error_of_every_file_is_imported_from_the_package() -> None:
    files = {path.stem for path in Path(errors.__file__).parent.glob("*.py")} - {"__init__"}
    assert {found.__module__.rpartition(".")[2] for found in branch(ServiceError)} == files
    assert sorted(errors.__all__) == sorted(found.__name__ for found in branch(ServiceError))


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(LoraNotFound("gone", {"missing_files": ["a"]})))  # noqa: S301
    assert (type(error), error.message, error.details) == (LoraNotFound, "gone", {"missing_files": ["a"]})


def test_the_body_is_the_references() -> None:
    body = LoraNotFound("gone", {"missing_files": ["a"]}).body()
    assert body == {"error": {"code": "LORA_NOT_FOUND", "message": "gone", "details": {"missing_files": ["a"]}}}
