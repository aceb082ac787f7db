"""Errors of predictors: each survives the way from one process to another, and each stands in the drawn tree."""

import pickle
import re

import pytest

from predictors import errors
from predictors.errors import PredictorError, RowsRejected

DRAWN = re.findall(r"^(?:├── |└── )?([A-Z]\w+)(?: {2,}|$)", errors.__doc__ or "", re.MULTILINE)


def _with_subclasses(error: type[PredictorError]) -> list[type[PredictorError]]:
    return [error, *(below for child in error.__subclasses__() for below in _with_subclasses(child))]


TREE = [error for error in _with_subclasses(PredictorError) if error.__module__ == errors.__name__]


def _make(error: type[PredictorError]) -> PredictorError:
    return error([3, 5], "is negative") if issubclass(error, RowsRejected) else error("what happened")


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling_with_all_that_it_says(error: type[PredictorError], protocol: int) -> None:
    made = _make(error)

    copy = pickle.loads(pickle.dumps(made, protocol))

    assert type(copy) is error
    assert str(copy) == str(made)
    assert copy.args == made.args
    assert vars(copy) == vars(made)


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_an_error_can_be_made_again_from_its_args(error: type[PredictorError]) -> None:
    made = _make(error)

    assert str(type(made)(*made.args)) == str(made)


def test_the_tree_in_the_docs_names_every_error_once() -> None:
    assert sorted(DRAWN) == sorted(error.__name__ for error in TREE)


def test_the_text_of_refused_rows_is_the_reason_alone() -> None:
    error = RowsRejected([3, 5], "is negative")

    assert str(error) == "is negative"
    assert error.rows == (3, 5)
