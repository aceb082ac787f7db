"""The service's settings: defaults, what is read, and one line on what cannot be."""

import dataclasses

import pytest

from launcher.errors import SettingWrong
from launcher.settings import Settings


def test_nothing_set_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()
    assert dataclasses.asdict(Settings()) | {"job_environment": {}} == {
        **dataclasses.asdict(Settings()),
        "max_concurrent_jobs": 3,
        "default_parallelism": 4,
        "max_input_rows": 10_000_000,
        "result_ttl_hours": 168.0,
        "store_url": None,
        "default_connection": None,
        "allowed_paths": None,
        "allowed_hosts": "",
    }


def test_what_is_empty_is_not_set() -> None:
    names = ["BATCH_MAX_CONCURRENT_JOBS", "BATCH_RESULT_TTL_HOURS", "PENSTOCK_STORE", "PENSTOCK_ALLOWED_PATHS"]

    assert Settings.from_environment(dict.fromkeys(names, "")) == Settings()
    assert Settings.from_environment({"BATCH_MAX_CONCURRENT_JOBS": "  "}) == Settings()


def test_each_variable_is_read() -> None:
    given = {
        "BATCH_MAX_CONCURRENT_JOBS": "7",
        "BATCH_DEFAULT_PARALLELISM": "2",
        "BATCH_MAX_INPUT_ROWS": "5000",
        "BATCH_RESULT_TTL_HOURS": "0.5",
        "PENSTOCK_MAX_JOBS": "9",
        "PENSTOCK_STORE": "postgresql://penstock@db/jobs",
        "PENSTOCK_DEFAULT_CONNECTION": "warehouse",
        "PENSTOCK_ALLOWED_PATHS": "/data/{tenant}",
        "PENSTOCK_ALLOWED_HOSTS": "localhost",
        "PENSTOCK_LEASE_S": "5",
        "PENSTOCK_RETRY_WAIT_S": "0",
    }
    settings = Settings.from_environment(given)

    assert settings == Settings(
        7, 2, 5000, 0.5, 9, "postgresql://penstock@db/jobs", "warehouse", "/data/{tenant}", "localhost", 5.0, 0.0
    )


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("BATCH_MAX_CONCURRENT_JOBS", "0", "is '0'; use a whole number from 1 to 10000"),
        ("BATCH_MAX_CONCURRENT_JOBS", "-3", "is '-3'; use a whole number from 1 to 10000"),
        ("BATCH_MAX_CONCURRENT_JOBS", "three", "is 'three'; use a whole number from 1 to 10000"),
        ("BATCH_MAX_CONCURRENT_JOBS", "3.0", "is '3.0'; use a whole number from 1 to 10000"),
        ("BATCH_MAX_CONCURRENT_JOBS", "9" * 400, f"is '{'9' * 40}'; use a whole number from 1 to 10000"),
        ("BATCH_MAX_CONCURRENT_JOBS", "9" * 5000, f"is '{'9' * 40}'; use a whole number from 1 to 10000"),
        ("BATCH_DEFAULT_PARALLELISM", "257", "is '257'; use a whole number from 1 to 256"),
        ("BATCH_MAX_INPUT_ROWS", "10,000", "is '10,000'; use a whole number from 1 to 1000000000000000"),
        ("BATCH_MAX_INPUT_ROWS", "1e6", "is '1e6'; use a whole number from 1 to 1000000000000000"),
        ("BATCH_RESULT_TTL_HOURS", "-1", "is '-1'; use a number from 0 to 1000000"),
        ("BATCH_RESULT_TTL_HOURS", "nan", "is 'nan'; use a number from 0 to 1000000"),
        ("BATCH_RESULT_TTL_HOURS", "inf", "is 'inf'; use a number from 0 to 1000000"),
        ("BATCH_RESULT_TTL_HOURS", "7 days", "is '7 days'; use a number from 0 to 1000000"),
        ("PENSTOCK_MAX_JOBS", "0", "is '0'; use a whole number from 1 to 10000"),
        ("PENSTOCK_LEASE_S", "1.9", "is '1.9'; use a number from 2 to 86400"),
        ("PENSTOCK_RETRY_WAIT_S", "3601", "is '3601'; use a number from 0 to 3600"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(name: str, value: str, line: str) -> None:
    with pytest.raises(SettingWrong) as told:
        Settings.from_environment({name: value})

    assert str(told.value) == f"{name} {line}"


def test_the_bounds_themselves_may_be() -> None:
    settings = Settings.from_environment(
        {"BATCH_RESULT_TTL_HOURS": "0", "PENSTOCK_LEASE_S": "2", "BATCH_MAX_INPUT_ROWS": str(10**15)}
    )

    assert (settings.result_ttl_hours, settings.lease_s, settings.max_input_rows) == (0.0, 2.0, 10**15)


def test_a_job_gets_no_secret_of_the_service() -> None:
    given = {
        "PATH": "/usr/bin",
        "HOME": "/home/penstock",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "0",
        "SSL_CERT_FILE": "/etc/certs.pem",
        "PENSTOCK_STORE": "postgresql://penstock:hush@db/jobs",
        "PENSTOCK_DEFAULT_CONNECTION": "postgresql://sales:hush@db/sales",
        "PENSTOCK_HOME": "/var/penstock",
        "PGPASSWORD": "hush",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "WAREHOUSE_PASSWORD": "hush",
        "path": "/not/it",
    }
    passed = Settings.from_environment(given).job_environment

    assert set(passed) == {"PATH", "HOME", "LC_ALL", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE"}
    assert "hush" not in "".join(passed.values())


def test_what_is_named_a_job_gets_too() -> None:
    named = {"HF_HOME": "/hf", "MODEL_CACHE": "/m"}
    given = {"PENSTOCK_JOB_ENVIRONMENT": " HF_HOME, MODEL_CACHE,,MISSING", "OTHER": "1", **named}

    assert Settings.from_environment(given).job_environment == named


def test_no_secret_is_in_its_repr() -> None:
    settings = Settings.from_environment(
        {
            "PENSTOCK_STORE": "postgresql://penstock:hush@db/jobs",
            "PENSTOCK_DEFAULT_CONNECTION": "postgresql://sales:hush@db/sales",
            "PENSTOCK_JOB_ENVIRONMENT": "TOKEN",
            "TOKEN": "hush",
        }
    )

    assert "hush" not in repr(settings)
