import pickle

import pytest

from serve_app import errors
from serve_app.errors import ErrorCode, LoraNotFound, ServiceError


def concrete(base: type[ServiceError]) -> list[type[ServiceError]]:
    below = [found for child in base.__subclasses__() for found in concrete(child)]
    return below or [base]


def test_every_code_belongs_to_one_error() -> None:
    codes = [error.code for error in concrete(ServiceError)]
    assert sorted(codes) == sorted(ErrorCode)


@pytest.mark.parametrize("name", sorted(error.__name__ for error in concrete(ServiceError)))
def test_the_drawing_of_the_tree_is_complete(name: str) -> None:
    assert name in (errors.__doc__ or "")


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(LoraNotFound("gone", {"missing_files": ["a"]})))  # noqa: S301
    assert (type(error), error.message, error.details) == (LoraNotFound, "gone", {"missing_files": ["a"]})


def test_the_body_is_the_references() -> None:
    body = LoraNotFound("gone", {"missing_files": ["a"]}).body()
    assert body == {"error": {"code": "LORA_NOT_FOUND", "message": "gone", "details": {"missing_files": ["a"]}}}
