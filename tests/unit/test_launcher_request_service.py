"""Bodies of the service's requests: what is taken, the line that each mistake gets, what the schemas say of them."""

import json
import re
import traceback
from collections.abc import Callable
from typing import Any, get_args

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.errors import RequestError
from launcher.request.paths import path_fault
from launcher.request.service import (
    ConnectionRequest,
    Defaults,
    JobRequest,
    ModelRequest,
    ScheduleChange,
    ScheduleRequest,
    Timing,
    WebhookRequest,
    connection_request,
    job_request,
    json_body,
    model_request,
    schedule_change_request,
    schedule_request,
    schema_of,
    schemas,
)
from pipelines.spec import Config, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from transforms.sinks.mode import Mode

SEED = b"""{
  "model_id": "model-xyz789",
  "input": {
    "source": "sql",
    "query": "SELECT customer_id, tenure, monthly_charges, total_charges FROM customers"
  },
  "output": {
    "destination": "table",
    "table_name": "predictions.churn_scores",
    "mode": "overwrite"
  },
  "config": {
    "batch_size": 1000,
    "parallelism": 4,
    "timeout_minutes": 60
  }
}"""
JOB: dict[str, Any] = json.loads(SEED)
SECRET = "hunter2-and-more"
FULL: dict[str, Any] = {
    "model": {"uri": "churn.onnx", "features": ["tenure", "charges"], "nulls": "pass"},
    "input": {"source": "parquet", "path": ["/data/a", "/data/b/*"]},
    "output": {"destination": "parquet", "mode": "append", "columns": ["id"]},
    "rejects": {"path": "/data/rejects", "max_reject_ratio": 0.1},
    "config": {"retry_count": 0, "max_memory_gb": 2, "runner": "direct"},
    "schedule": {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "missed": "skip", "overlap": "skip"},
    "webhook": {"url": "https://example.com/hook?a=b", "secret": SECRET, "events": ["running", "failed"]},
    "labels": {"team": "growth", "empty": ""},
    "name": "churn, daily",
}
MODEL: dict[str, Any] = {"model_id": "churn", "uri": "churn.onnx"}
CONNECTION: dict[str, Any] = {"name": "warehouse", "uri": f"postgresql://scorer:{SECRET}@db.example.com/warehouse"}
SCHEDULE: dict[str, Any] = {"name": "nightly", "schedule": {"cron": "0 2 * * *"}, "job": JOB}
CHANGE: dict[str, Any] = {"enabled": False, "job": JOB}

READERS: dict[str, Callable[[Any], Any]] = {
    "JobBody": job_request,
    "RegisteredModelBody": model_request,
    "ConnectionBody": connection_request,
    "ScheduleBody": schedule_request,
    "ScheduleChangeBody": schedule_change_request,
}


def changed(body: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """`body` with one field set; a value of `...` takes the field out."""
    copy: dict[str, Any] = json.loads(json.dumps(body))
    *parts, name = field.split(".")
    at = copy
    for part in parts:
        at = at.setdefault(part, {})
    if value is ...:
        del at[name]
    else:
        at[name] = value
    return copy


def problems(read: Callable[[Any], Any], body: Any) -> list[str]:
    with pytest.raises(RequestError) as caught:
        read(body)
    return [str(problem) for problem in caught.value.problems]


def refused(data: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        json_body(data)
    return str(caught.value)


# --- what is taken -------------------------------------------------------------------------------------------------


def test_the_smallest_job_is_read_as_it_is_meant() -> None:
    request = job_request(json_body(SEED))

    assert request == JobRequest(
        model_id="model-xyz789",
        model_version=None,
        model=None,
        input=SqlInput("", "SELECT customer_id, tenure, monthly_charges, total_charges FROM customers"),
        output=TableOutput("", "predictions.churn_scores", "overwrite"),
        rejects=Rejects(),
        config=Config(batch_size=1000, parallelism=4, timeout_minutes=60),
        schedule=None,
        webhook=None,
        labels={},
        name=None,
    )
    assert json.dumps(request.to_json(), indent=2).encode() == SEED


def test_the_largest_job_is_read_as_it_is_meant() -> None:
    request = job_request(FULL)

    assert request == JobRequest(
        model_id=None,
        model_version=None,
        model=ModelSpec("churn.onnx", "onnx", ("tenure", "charges"), "pass"),
        input=ParquetInput(("/data/a", "/data/b/*")),
        output=ParquetOutput("", "append", ("id",)),
        rejects=Rejects("/data/rejects", 0.1),
        config=Config(retry_count=0, max_memory_gb=2),
        schedule=Timing("0 2 * * *", "Europe/Berlin", True, "skip", "skip"),
        webhook=WebhookRequest("https://example.com/hook?a=b", ("running", "failed"), SECRET),
        labels={"team": "growth", "empty": ""},
        name="churn, daily",
    )
    assert request.webhook is not None
    assert request.webhook.secret == SECRET
    assert request.to_json() == changed(FULL, "webhook.secret", ...)
    assert request.template() == changed(changed(FULL, "webhook.secret", ...), "schedule", ...)


def test_the_service_fills_in_what_a_job_leaves_out() -> None:
    defaults = Defaults(batch_size=7, parallelism=8, retry_count=1, max_reject_ratio=0.5)
    request = job_request(changed(JOB, "config", {"batch_size": 9}), defaults)

    assert request.config == Config(batch_size=9, parallelism=8, retry_count=1)
    assert request.rejects == Rejects(None, 0.5)
    assert schedule_request(SCHEDULE, defaults).job.config.retry_count == 1
    assert schedule_change_request(CHANGE, defaults).job == schedule_request(SCHEDULE, defaults).job


def test_a_job_without_output_leaves_its_place_to_the_service() -> None:
    assert job_request(changed(JOB, "output", ...)).output is None
    assert job_request(changed(JOB, "output", None)).output is None
    assert job_request(changed(JOB, "output", {"destination": "parquet"})).output == ParquetOutput("")


def test_connections_are_named() -> None:
    request = job_request(changed(changed(JOB, "input.connection", "warehouse"), "output.connection", "a-1_b"))

    assert request.input == SqlInput("warehouse", JOB["input"]["query"])
    assert request.output == TableOutput("a-1_b", "predictions.churn_scores", "overwrite")


@pytest.mark.parametrize("mode", get_args(Mode))
def test_every_mode_is_taken(mode: Mode) -> None:
    output = job_request(changed(JOB, "output.mode", mode)).output

    assert output is not None
    assert output.mode == mode


def test_a_webhook_tells_of_the_end_by_itself() -> None:
    request = job_request(changed(JOB, "webhook", {"url": "http://[::1]:8080/"}))

    assert request.webhook == WebhookRequest("http://[::1]:8080/", ("completed", "failed", "cancelled"))


@pytest.mark.parametrize("url", ["http://a", "https://a.b-c.example:65535", "http://10.0.0.1?x", "https://h/x#y"])
def test_a_webhook_is_an_address_of_the_web(url: str) -> None:
    request = job_request(changed(JOB, "webhook.url", url))

    assert request.webhook is not None
    assert request.webhook.url == url


def test_what_is_kept_is_not_what_came() -> None:
    body = json.loads(json.dumps(FULL))
    request = job_request(body)
    body["labels"]["team"] = "other"
    request.to_json()["labels"]["team"] = "another"

    assert request.to_json()["labels"] == {"team": "growth", "empty": ""}


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (MODEL, ModelRequest("churn", ModelSpec("churn.onnx", "onnx"))),
        (
            {
                "model_id": "A.b_c-1",
                "uri": "models:Churn",
                "flavor": "python",
                "features": ["a"],
                "nulls": "fail",
                "import_path": "/models",
                "description": "x\ny",
            },
            ModelRequest("A.b_c-1", ModelSpec("models:Churn", "python", ("a",), "fail"), "/models", "x\ny"),
        ),
    ],
    ids=["small", "full"],
)
def test_a_model_is_read_as_it_is_meant(body: dict[str, Any], request_: ModelRequest) -> None:
    assert model_request(body) == request_


@pytest.mark.parametrize(
    "uri", [CONNECTION["uri"], "postgres://h/db", "sqlite:////data/x.db", "postgresql:///db?host=/run"]
)
def test_a_connection_is_read_as_it_is_meant(uri: str) -> None:
    assert connection_request({"name": "a", "uri": uri}) == ConnectionRequest("a", uri)
    assert connection_request({"name": "a", "uri": uri, "description": "d"}) == ConnectionRequest("a", uri, "d")


def test_a_schedule_is_read_as_it_is_meant() -> None:
    assert schedule_request(SCHEDULE) == ScheduleRequest("nightly", Timing("0 2 * * *"), job_request(JOB))


def test_a_change_of_a_schedule_holds_what_changes() -> None:
    assert schedule_change_request({}) == ScheduleChange()
    assert schedule_change_request({"cron": None}) == ScheduleChange()
    assert schedule_change_request(CHANGE) == ScheduleChange(enabled=False, job=job_request(JOB))
    assert schedule_change_request(
        {"cron": "* * * * *", "timezone": "UTC", "missed": "skip", "overlap": "cancel_running"}
    ) == ScheduleChange("* * * * *", "UTC", None, "skip", "cancel_running")


TEMPLATES = {
    "model_id": "churn-{{ scheduled_date }}",
    "input.query": "SELECT * FROM t WHERE day = '{{ scheduled_date }}'",
    "input.connection": "{{ scheduled_at | %Y }}",
    "output.table_name": "scores_{{ scheduled_at | %Y%m%d }}",
    "webhook.url": "https://h/{{ scheduled_date }}",
    "name": "churn of {{ scheduled_date }}",
}


def test_texts_of_a_scheduled_job_may_hold_templates() -> None:
    job = JOB
    for field, text in TEMPLATES.items():
        job = changed(job, field, text)

    assert schedule_request(changed(SCHEDULE, "job", job)).job.to_json() == job
    assert job_request(changed(job, "schedule.cron", "0 2 * * *")).template() == job
    assert schedule_change_request({"job": job}).job == schedule_request(changed(SCHEDULE, "job", job)).job
    lines = problems(job_request, job)
    assert sorted(line.split()[0] for line in lines) == [
        "input.connection",
        "input.query",
        "model_id",
        "output.table_name",
        "webhook.url",
    ]
    assert (
        "input.query has {{ scheduled_date }}, and the job has no schedule that would fill it in; "
        "add one, or write its value"
    ) in lines


def test_a_python_model_of_a_scheduled_job_may_be_told_by_a_template() -> None:
    model = {"uri": "models:{{ scheduled_date }}", "flavor": "python"}
    body = changed(changed(SCHEDULE, "job.model", model), "job.model_id", ...)

    assert schedule_request(body).job.model == ModelSpec("models:{{ scheduled_date }}", "python")


# --- what is refused -----------------------------------------------------------------------------------------------

A_MODEL_ID = "use letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
A_CONNECTION = "use small letters, digits, '_' and '-', at most 63, a letter or digit first"
REGISTER = "register it with POST /api/v1/connections and name it here"
A_URL = "write https://host/path, in ASCII"
A_PATH = "write a file, a glob, a folder, or a list of them"
FIVE = (
    "write five, parted by spaces: minute (0-59), hour (0-23), day of the month (1-31), month (1-12), "
    "day of the week (0-7 or SUN-SAT)"
)


@pytest.mark.parametrize(
    ("field", "value", "lines"),
    [
        ("model_id", ..., ["model_id is missing; write the id of a registered model, or model in its place"]),
        ("model_id", None, ["model_id is missing; write the id of a registered model, or model in its place"]),
        ("model_id", 3, ["model_id is the number 3; write the id of a registered model, in quotes"]),
        ("model_id", "", [f"model_id is empty; {A_MODEL_ID}"]),
        ("model_id", "-a", [f"model_id is '-a'; {A_MODEL_ID}"]),
        ("model_id", "a\n", [f"model_id is 'a'; {A_MODEL_ID}"]),
        ("model_id", "a" * 129, [f"model_id is '{'a' * 59}…; {A_MODEL_ID}"]),
        ("model", {"uri": "a.onnx"}, ["model stands beside model_id; keep one of them"]),
        ("model", "churn", ["model is the text 'churn'; it is a mapping with uri, flavor, features, nulls, "
                            "outputs and args",
                            "model stands beside model_id; keep one of them"]),
        ("model_version", 0, ["model_version is 0; use a whole number from 1 to 2147483647"]),
        ("model_version", 2**31, ["model_version is 2147483648; use a whole number from 1 to 2147483647"]),
        ("model_version", "1", ["model_version is the text '1'; use a whole number from 1 to 2147483647"]),
        ("input", ..., ["input is missing; write source, and where the rows are"]),
        ("input.source", "csv", ["input.source is 'csv', which is not known here; use parquet or sql"]),
        ("input.source", ..., ["input.source is missing; use parquet or sql"]),
        ("input.query", ..., ["input.query is missing; write one SELECT"]),
        ("input.query", "", ["input.query is empty; write one SELECT"]),
        ("input.query", "x" * 100_001, ["input.query has 100,001 characters; use at most 100,000"]),
        ("input.query", "a\0b", ["input.query holds the character U+0000, which cannot be stored; take it out"]),
        ("input.query", "\udc00", ["input.query holds the character U+DC00, which cannot be stored; take it out"]),
        ("input.connection", "", [f"input.connection is empty; {A_CONNECTION}"]),
        ("input.connection", "Ware House", [f"input.connection is 'Ware House'; {A_CONNECTION}"]),
        ("input.connection", f"host=db password={SECRET}", [f"input.connection is *****; {A_CONNECTION}"]),
        ("input.connection", f"postgresql://me:{SECRET}@h/db",
         [f"input.connection is postgresql://me:*****@h/db, a URI, and here a name is wanted; {REGISTER}"]),
        ("input.connection", 5, ["input.connection is a number; write the name of a registered connection, in quotes"]),
        ("output.connection", "sqlite:///x.db",
         [f"output.connection is sqlite:///x.db, a URI, and here a name is wanted; {REGISTER}"]),
        ("output.table_name", "x" * 256, ["output.table_name has 256 characters; use at most 255"]),
        ("output.mode", "upsert",
         ["output.mode is 'upsert', which is not known here; use error_if_exists, overwrite or append"]),
        ("output.path", "/x",
         ["output.path belongs to destination parquet, and this is table; take it out or change output.destination"]),
        ("output.columns", ["a", "a"], ["output.columns names 'a' more than once; name each column once"]),
        ("output.columns", [str(n) for n in range(2001)], ["output.columns has 2,001 entries; use at most 2,000"]),
        ("output.columns", ["a", "x" * 4097], ["output.columns[1] has 4,097 characters; use at most 4,096"]),
        ("output.columns", ["a", "\0"],
         ["output.columns[1] holds the character U+0000, which cannot be stored; take it out"]),
        ("config.batch_size", "1000", ["config.batch_size is the text '1000'; use a whole number from 1 to 1000000"]),
        ("config.batchsize", 5, ["config.batchsize is not known; did you mean config.batch_size?"]),
        ("config.max_memory_gb", float("inf"), ["config.max_memory_gb is Infinity; use a number above 0"]),
        ("rejects.max_reject_ratio", 2, ["rejects.max_reject_ratio is 2; use a number from 0 to 1"]),
        ("schedule", {}, ["schedule.cron is missing; write five fields, such as 0 2 * * *"]),
        ("schedule", "0 2 * * *",
         ["schedule is the text '0 2 * * *'; it is a mapping with cron, timezone, enabled, missed and overlap"]),
        ("schedule.cron", "* *", [f"schedule.cron '* *' has 2 fields; {FIVE}"]),
        ("schedule.cron", "0 0 30 2 *",
         ["schedule.cron '0 0 30 2 *' cannot be read at its day of month; "
          "it takes minute (0-59), hour (0-23), day of the month (1-31), month (1-12), "
          "day of the week (0-7 or SUN-SAT)"]),
        ("webhook", SECRET, ["webhook is a text; it is a mapping with url, secret and events"]),
        ("webhook", {}, ["webhook.url is missing; write https://host/path"]),
        ("webhook.url", "ftp://h/x", [f"webhook.url is ftp://h/x; {A_URL}"]),
        ("webhook.url", "h/x", [f"webhook.url is 'h/x'; {A_URL}"]),
        ("webhook.url", "https://h/ü", [f"webhook.url is https://h/ü; {A_URL}"]),
        ("webhook.url", "https://h:65536/", [f"webhook.url is https://h:65536/; {A_URL}"]),
        ("webhook.url", "https://[::x]/", [f"webhook.url is https://[::x]/; {A_URL}"]),
        ("webhook.url", "https://[:::]/", [f"webhook.url is https://[:::]/; {A_URL}"]),
        ("webhook.url", f"https://me:{SECRET}@h/",
         ["webhook.url is https://me:*****@h/, which holds a user; take it out, `secret` signs what is sent"]),
        ("name", "x" * 201, ["name has 201 characters; use at most 200"]),
        ("labels", {str(n): "" for n in range(21)}, ["labels has 21 entries; use at most 20"]),
        ("labels", {"a": "x" * 64}, ["labels.a has 64 characters; use at most 63"]),
        ("labels", {"x" * 64: "a"}, [f"labels.'{'x' * 59}… is a name of 64 characters; use at most 63"]),
        ("labels", {"a": 3}, ["labels.a is the number 3; write a text of at most 63 characters, in quotes"]),
        ("labels", {"": "a"}, ["labels.'' has no name; write one"]),
        ("labels", {"a\0": "a"}, [r"labels.'a\x00' holds the character U+0000, which cannot be stored; take it out"]),
        ("labels", ["a"], ["labels is a list; write names and texts"]),
        ("\ud800", 1, [r"'\ud800' holds the character U+D800, which cannot be stored; take it out"]),
        ("modelid", "a", ["modelid is not known; did you mean model_id?"]),
        ("timezone", "UTC", ["timezone is not known; did you mean schedule.timezone?"]),
        ("x" * 99, 1, [f"'{'x' * 59}… is not known; use model_id, model_version, model, input, output, rejects, "
                       "config, webhook, labels, name and schedule"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_job_is_named_with_its_remedy(field: str, value: Any, lines: list[str]) -> None:
    assert problems(job_request, changed(JOB, field, value)) == lines


@pytest.mark.parametrize(
    ("field", "value", "lines"),
    [
        ("model_version", 1, ["model_version belongs to model_id, and there is none; take it out"]),
        ("model.uri", "churn.bin",
         ["model.flavor is missing and model.uri 'churn.bin' does not tell it; use onnx or python"]),
        ("model.uri", "x" * 4097 + ".onnx", ["model.uri has 4,102 characters; use at most 4,096"]),
        ("model.features", [str(n) for n in range(2001)], ["model.features has 2,001 entries; use at most 2,000"]),
        ("model.model_id", "a", ["model.model_id is not known; did you mean model_id?"]),
        ("input.path", [], [f"input.path is an empty list; {A_PATH}"]),
        ("input.path", None, [f"input.path is empty; {A_PATH}"]),
        ("input.path", ["a"] * 1001, ["input.path has 1,001 entries; use at most 1,000"]),
        ("input.path", ["a", "b" * 4097, 3],
         ["input.path[1] has 4,097 characters; use at most 4,096", f"input.path[2] is the number 3; {A_PATH}"]),
        ("input.path", ["a\0"], ["input.path[0] holds the character U+0000, which cannot be stored; take it out"]),
        ("input.connection", "a",
         ["input.connection belongs to source sql, and this is parquet; take it out or change input.source"]),
        ("output.path", "", ["output.path is empty; write a folder"]),
        ("schedule.timezone", "europe/berlin",
         ["schedule.timezone 'europe/berlin' is not known; did you mean Europe/Berlin?"]),
        ("schedule.enabled", "yes", ["schedule.enabled is the text 'yes'; use true or false"]),
        ("schedule.missed", "all", ["schedule.missed is 'all', which is not known here; use run_once or skip"]),
        ("schedule.overlap", "no",
         ["schedule.overlap is 'no', which is not known here; use queue, skip or cancel_running"]),
        ("output.path", "s3://b/out",
         ["output.path is s3://b/out, and s3:// is not supported yet; write a local path or file:///…, or ./… for a "
          "file of that name"]),
        ("input.path", ["a", "hdfs:/x"],
         ["input.path[1] is 'hdfs:/x', and hdfs:// is not supported yet; write a local path or file:///…, or ./… for a "
          "file of that name"]),
        ("input.schema", {"day": "date"},
         ["input.schema.day is 'date', which is no type; write a type as Arrow prints it, such as date32[day]"]),
        ("webhook.secret", "hunter2", ["webhook.secret is too short; write at least 8 characters"]),
        ("webhook.secret", 12345678, ["webhook.secret is a number; write at least 8 characters, in quotes"]),
        ("webhook.secret", [SECRET], ["webhook.secret is a list; write at least 8 characters"]),
        ("webhook.events", [], ["webhook.events is empty; list the states to be told of"]),
        ("webhook.events", ["done"],
         ["webhook.events[0] is 'done', which is not known here; use submitted, preparing, running, completing, "
          "completed, failed or cancelled"]),
        ("webhook.events", ["failed", "failed"],
         ["webhook.events names 'failed' more than once; name each state once"]),
        ("webhook.events", "failed", ["webhook.events is the text 'failed'; list the states to be told of"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_long_job_is_named_with_its_remedy(field: str, value: Any, lines: list[str]) -> None:
    assert problems(job_request, changed(FULL, field, value)) == lines


@pytest.mark.parametrize(
    ("read", "body", "field", "value", "lines"),
    [
        (model_request, MODEL, "model_id", ..., ["model_id is missing; write what jobs will call it"]),
        (model_request, MODEL, "model_id", "a b", [f"model_id is 'a b'; {A_MODEL_ID}"]),
        (model_request, MODEL, "uri", "churn.bin",
         ["flavor is missing and uri 'churn.bin' does not tell it; use onnx or python"]),
        (model_request, MODEL, "flavor", "python",
         ["uri is 'churn.onnx', and flavor python needs module:Class; name a class"]),
        (model_request, MODEL, "import_path", "/m",
         ["import_path is where a Python class is imported from, and this is an ONNX model; take it out"]),
        (model_request, MODEL, "features", ["a", "b", "a"],
         ["features names 'a' more than once; name each column once"]),
        (model_request, MODEL, "uri", "s3://b/churn.onnx",
         ["uri is s3://b/churn.onnx, and s3:// is not supported yet; write a local path or file:///…, or ./… for a "
          "file of that name"]),
        (model_request, MODEL, "description", 1,
         ["description is the number 1; write a text, or leave it out, in quotes"]),
        (model_request, MODEL, "feature", [], ["feature is not known; did you mean features?"]),
        (connection_request, CONNECTION, "name", ..., ["name is missing; write a name"]),
        (connection_request, CONNECTION, "name", "A", [f"name is 'A'; {A_CONNECTION}"]),
        (connection_request, CONNECTION, "uri", ...,
         ["uri is missing; write postgresql://user:password@host/db or sqlite:////folder/file.db"]),
        (connection_request, CONNECTION, "uri", f"mysql://me:{SECRET}@h/db",
         ["uri is mysql://me:*****@h/db; write postgresql://user:password@host/db or sqlite:////folder/file.db"]),
        (connection_request, CONNECTION, "uri", f"host=h password={SECRET}",
         ["uri is *****; write postgresql://user:password@host/db or sqlite:////folder/file.db"]),
        (connection_request, CONNECTION, "uri", "postgresql://me:${PASSWORD}@h/db",
         ["uri is postgresql://me:*****@h/db, and the service fills in no variables; write the value itself, it is not "
          "shown again ($ is %24 where it belongs to a password)"]),
        (connection_request, CONNECTION, "url", "", ["url is not known; did you mean uri?"]),
        (schedule_request, SCHEDULE, "schedule", ..., ["schedule is missing; write cron"]),
        (schedule_request, SCHEDULE, "job", ..., ["job is missing; write the body of a job, without its schedule"]),
        (schedule_request, SCHEDULE, "job.model_id", ...,
         ["job.model_id is missing; write the id of a registered model, or model in its place"]),
        (schedule_request, SCHEDULE, "job.input.query", 3,
         ["job.input.query is the number 3; write one SELECT, in quotes"]),
        (schedule_request, SCHEDULE, "job.output.tablename", "a",
         ["job.output.tablename is not known; did you mean job.output.table_name?"]),
        (schedule_request, SCHEDULE, "job.config.parallelism", "{{ n }}",
         ["job.config.parallelism is the text '{{ n }}'; use a whole number from 1 to 256"]),
        (schedule_request, SCHEDULE, "job.schedule", {}, ["job.schedule is not known; did you mean schedule?"]),
        (schedule_request, SCHEDULE, "cron", "a", ["cron is not known; did you mean schedule.cron?"]),
        (schedule_request, SCHEDULE, "schedule.cron", "{{ a }} * * * *",
         [f"schedule.cron '{{{{ a }}}} * * * *' has 7 fields; {FIVE}"]),
        (schedule_change_request, CHANGE, "timezone", "Berlin",
         ["timezone 'Berlin' is not known; did you mean Europe/Berlin?"]),
        (schedule_change_request, CHANGE, "job.input.source", "csv",
         ["job.input.source is 'csv', which is not known here; use parquet or sql"]),
        (schedule_change_request, CHANGE, "schedule", {},
         ["schedule is not known; use cron, timezone, enabled, missed, overlap and job"]),
    ],
)  # fmt: skip
def test_a_mistake_in_another_body_is_named_with_its_remedy(
    read: Callable[[Any], Any], body: dict[str, Any], field: str, value: Any, lines: list[str]
) -> None:
    assert problems(read, changed(body, field, value)) == lines


@pytest.mark.parametrize(
    ("read", "needs"),
    [
        (job_request, "input, and model_id or model"),
        (model_request, "model_id and uri"),
        (connection_request, "name and uri"),
        (schedule_request, "schedule and job"),
        (schedule_change_request, "what is to change"),
    ],
)
def test_a_body_is_an_object(read: Callable[[Any], Any], needs: str) -> None:
    assert problems(read, [SECRET]) == [f"the body is a list, not a JSON object; it needs {needs}"]
    assert problems(read, SECRET) == [f"the body is a text, not a JSON object; it needs {needs}"]
    assert problems(read, None) == [f"the body is empty, not a JSON object; it needs {needs}"]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_fields() -> None:
    body = {**changed(FULL, "model.uri", "a\0"), "zzz": 1, "name": 3, "model_version": "x", "config": {"runner": 1}}

    assert [line.split()[0] for line in problems(job_request, body)] == [
        "model_version",
        "model_version",
        "model.uri",
        "model.flavor",
        "config.runner",
        "name",
        "zzz",
    ]


def test_thousands_of_mistakes_are_not_told() -> None:
    lines = problems(job_request, {**JOB, **{f"key{n}": n for n in range(30_000)}})

    assert len(lines) == 51
    assert lines[0] == (
        "key0 is not known; use model_id, model_version, model, input, output, rejects, config, webhook, labels, name "
        "and schedule"
    )
    assert lines[-1] == "29,950 more mistakes are not told; correct these first"


# --- secrets -------------------------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("model_id", "model_version", "model", "model.uri", "model.flavor", "model.features", "input", "input.source"),
    *("input.query", "input.connection", "input.path", "input.schema", "output", "output.destination", "output.path"),
    *("output.mode", "config.batch_size", "config.max_memory_gb", "schedule", "schedule.cron", "schedule.timezone"),
    *("output.table_name", "output.columns", "output.connection", "rejects", "rejects.path", "config", "config.runner"),
    *("labels", "name", "schedule.enabled", "schedule.missed", "webhook.url", "webhook.events", "webhook.x"),
    *("labels.a", "extra"),
    *("uri", "flavor", "import_path", "description", "job", "job.model_id", "job.input.path", "job.webhook", "cron"),
]


def whole(error: BaseException) -> str:
    """All that a log may show of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


@given(st.sampled_from([JOB, FULL]), st.sampled_from(FIELDS), JSON_VALUES)
def test_the_secret_of_a_webhook_is_shown_nowhere(body: dict[str, Any], field: str, value: Any) -> None:
    body = changed(changed(body, "webhook", {"url": "https://h/", "secret": SECRET}), field, value)
    try:
        request = job_request(body)
        shown = repr(request) + str(request) + json.dumps(request.to_json())
    except RequestError as error:
        shown = whole(error)

    assert SECRET not in shown


@given(
    st.sampled_from(["postgresql", "postgres", "mysql", "https", "", "a b"]),
    st.sampled_from(["://", ":/", "", "://${V}"]),
    st.text(st.characters(), max_size=5),
    st.sampled_from(["name", "description", "extra", "x.y"]),
    JSON_VALUES,
)
def test_the_password_of_a_connection_is_shown_nowhere(
    scheme: str, separator: str, user: str, field: str, value: Any
) -> None:
    body = {"name": "a", "uri": f"{scheme}{separator}{user}:{SECRET}@host/db", field: value}
    try:
        shown = repr(connection_request(body))
    except RequestError as error:
        shown = whole(error)

    assert SECRET not in shown


@pytest.mark.parametrize("field", ["name", "model_id", "output.mode", "input.source", "config.batch_size", "labels.x"])
def test_a_uri_in_a_wrong_place_is_masked(field: str) -> None:
    body = changed(JOB, field, f"postgresql://me:{SECRET}@h/{'x' * 300}")

    assert SECRET not in "\n".join(problems(job_request, body))


def test_a_message_is_one_line_whatever_a_uri_holds() -> None:
    (line,) = problems(job_request, changed(JOB, "output.mode", "x://a\n\x1b[31m\u2028b\x85c"))

    assert line.startswith(r"output.mode is x://a \x1b[31m b c, which is not known here")
    assert line.splitlines() == [line]


# --- whatever comes ------------------------------------------------------------------------------------------------


def told_of(name: str, body: Any) -> list[str] | None:
    """The line of each mistake, fit to be sent; None where there is none."""
    try:
        READERS[name](body)
        return None
    except RequestError as error:
        lines = str(error).encode().decode().splitlines()
        return lines if len(lines) == len(error.problems) else []


@given(st.sampled_from(sorted(READERS)), JSON_VALUES)
def test_whatever_body_comes_is_taken_or_told(name: str, body: Any) -> None:
    told = told_of(name, body)

    assert told is None or (told and all(told))


BODIES = [
    ("JobBody", JOB),
    ("JobBody", FULL),
    ("RegisteredModelBody", MODEL),
    ("ConnectionBody", CONNECTION),
    ("ScheduleBody", SCHEDULE),
    ("ScheduleChangeBody", CHANGE),
]


@given(st.sampled_from(BODIES), st.sampled_from(FIELDS), JSON_VALUES)
def test_whatever_a_field_holds_is_taken_or_told(known: tuple[str, dict[str, Any]], field: str, value: Any) -> None:
    name, body = known
    told = told_of(name, changed(body, field, value))

    assert told is None or (told and all(told))


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
PATHS = TEXTS.filter(lambda text: path_fault(text) is None)
COLUMNS = st.lists(TEXTS, max_size=3, unique=True)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


MODES = st.sampled_from(get_args(Mode))
MODELS = st.fixed_dictionaries(
    {"uri": TEXTS, "flavor": st.just("onnx")},
    optional={
        "nulls": st.sampled_from(["reject", "pass", "fail"]),
        "features": st.none() | st.just(["a", "b"]) | st.just({"num": ["a"]}),
        "outputs": st.none()
        | st.just(["y"])
        | st.dictionaries(TEXTS, TEXTS | st.just(["a", "b"]), min_size=1, max_size=2),
    },
)
JOBS = st.builds(
    lambda model, rest: {**model, **rest},
    st.fixed_dictionaries({"model_id": NAMES}, optional={"model_version": st.integers(1, 9), "model": st.none()})
    | st.fixed_dictionaries({"model": MODELS}),
    st.fixed_dictionaries(
        {
            "input": st.fixed_dictionaries(
                {"source": st.just("sql"), "query": TEXTS}, optional={"connection": st.none() | NAMES}
            )
            | st.fixed_dictionaries(
                {"source": st.just("parquet"), "path": PATHS | st.lists(PATHS, min_size=1, max_size=3)},
                optional={
                    "schema": st.none() | st.dictionaries(TEXTS, st.sampled_from(["date32[day]", "list<a: int8>"]))
                },
            )
        },
        optional={
            "output": st.none()
            | st.fixed_dictionaries(
                {"destination": st.just("table"), "table_name": TEXTS},
                optional={"connection": NAMES, "mode": MODES, "columns": COLUMNS},
            )
            | st.fixed_dictionaries(
                {"destination": st.just("parquet")},
                optional={"path": st.none() | PATHS, "mode": MODES, "columns": COLUMNS},
            ),
            "rejects": some(path=st.none() | PATHS, max_reject_ratio=st.floats(0, 1) | st.sampled_from([0, 1])),
            "config": some(
                batch_size=st.integers(1, 1_000_000),
                parallelism=st.integers(1, 256),
                max_memory_gb=st.floats(0.1, 1e6) | st.integers(1, 2**70),
                timeout_minutes=st.floats(0.1, 1e6),
                retry_count=st.integers(0, 100),
                runner=st.just("direct"),
            ),
            "schedule": st.none()
            | st.fixed_dictionaries(
                {"cron": st.sampled_from(["0 2 * * *", "*/5 * * * MON#2"])},
                optional={"timezone": st.sampled_from(["UTC", "Asia/Tokyo"]), "enabled": st.booleans()},
            ),
            "webhook": st.none()
            | st.fixed_dictionaries(
                {"url": st.just("https://h/")},
                optional={
                    "secret": st.none() | TEXTS.map("a secret".__add__),
                    "events": st.just(["running"]),
                },
            ),
            "labels": st.dictionaries(TEXTS, st.just("") | TEXTS, max_size=3),
            "name": st.none() | TEXTS,
        },
    ),
)


@given(JOBS)
def test_what_is_kept_of_a_job_makes_the_same_job(body: dict[str, Any]) -> None:
    request = job_request(body)
    kept = request.to_json()

    assert job_request(json_body(json.dumps(kept).encode())) == request
    assert job_request(kept).to_json() == kept
    assert "secret" not in (kept.get("webhook") or {})


# --- what the schemas say ------------------------------------------------------------------------------------------


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas()}}
    )


VALIDATORS = {name: validator(name) for name in READERS}


@given(st.sampled_from(BODIES), st.sampled_from(FIELDS), JSON_VALUES)
def test_a_schema_takes_what_is_taken(known: tuple[str, dict[str, Any]], field: str, value: Any) -> None:
    name, body = known
    changed_ = changed(body, field, value)
    try:
        READERS[name](changed_)
    except RequestError:
        return

    assert VALIDATORS[name].is_valid(changed_)


@given(JOBS)
def test_the_schema_of_a_job_takes_every_job(body: dict[str, Any]) -> None:
    assert VALIDATORS["JobBody"].is_valid(body)


@pytest.mark.parametrize(
    ("name", "body", "field", "value"),
    [
        ("JobBody", JOB, "model_id", ...),
        ("JobBody", JOB, "model_id", "a b"),
        ("JobBody", JOB, "model", {"uri": "a.onnx"}),
        ("JobBody", JOB, "input.query", "x" * 100_001),
        ("JobBody", JOB, "input.query", "a\0b"),
        ("JobBody", JOB, "input.connection", "sqlite:///x.db"),
        ("JobBody", JOB, "output.columns", ["a", "a"]),
        ("JobBody", JOB, "output.path", "/x"),
        ("JobBody", JOB, "labels", {"x" * 64: ""}),
        ("JobBody", JOB, "extra", 1),
        ("JobBody", FULL, "model_version", 1),
        ("JobBody", FULL, "model.uri", "churn.bin"),
        ("JobBody", FULL, "model.flavor", "python"),
        ("JobBody", FULL, "input.path", []),
        ("JobBody", FULL, "input.path", ["a"] * 1001),
        ("JobBody", FULL, "webhook.url", "https://me@h/"),
        ("JobBody", FULL, "webhook.url", "https://h:65536/"),
        ("JobBody", FULL, "webhook.secret", "short"),
        ("RegisteredModelBody", MODEL, "import_path", "/m"),
        ("ConnectionBody", CONNECTION, "uri", "postgresql://${HOST}/db"),
        ("ConnectionBody", CONNECTION, "uri", "mysql://h/db"),
        ("ScheduleBody", SCHEDULE, "job.schedule", {"cron": "* * * * *"}),
        ("ScheduleChangeBody", CHANGE, "overlap", "no"),
    ],
)
def test_a_schema_refuses_what_is_refused(name: str, body: dict[str, Any], field: str, value: Any) -> None:
    wrong = changed(body, field, value)

    assert VALIDATORS[name].is_valid(body)
    assert not VALIDATORS[name].is_valid(wrong)
    assert problems(READERS[name], wrong)


def test_every_field_is_described_and_has_an_example_that_is_taken() -> None:
    lacking = []
    named = schemas()
    for name, schema in named.items():
        assert schema["description"]
        for field, each in schema["properties"].items():
            parts = {"model", "input", "output", "rejects", "config", "webhook", "schedule", "job"}
            if not each.get("description") or (field not in parts and not each.get("examples")):
                lacking.append(f"{name}.{field}")
            one = jsonschema_rs.Draft202012Validator({**each, "components": {"schemas": named}})
            assert all(one.is_valid(example) for example in each.get("examples", []))

    assert lacking == []
    assert all(job_request(example) for example in named["JobBody"]["examples"])


def test_schemas_refer_to_each_other_as_openapi_does() -> None:
    named = schemas()
    references = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(named)))

    assert references
    assert references <= {f"#/components/schemas/{name}" for name in named}
    assert READERS.keys() <= named.keys()
    assert schema_of("JobBody") == named["JobBody"]


def test_a_schema_tells_the_services_own_defaults() -> None:
    properties = schema_of("ConfigBody", Defaults(parallelism=9))["properties"]
    rejects = schema_of("RejectsBody", Defaults(max_reject_ratio=0.5))["properties"]

    assert (properties["parallelism"]["default"], properties["batch_size"]["default"]) == (9, 1000)
    assert schema_of("ConfigBody")["properties"]["parallelism"]["default"] == 4
    assert rejects["max_reject_ratio"]["default"] == 0.5


@pytest.mark.parametrize(("name", "field"), [("ConnectionBody", "uri"), ("WebhookBody", "secret")])
def test_a_secret_is_documented_as_one(name: str, field: str) -> None:
    assert schema_of(name)["properties"][field]["writeOnly"] is True


# --- the bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "rest"),
    [
        (b"", " is empty; send a JSON object"),
        (b" \n", " is empty; send a JSON object"),
        (b'{"a": "\xff"}', " is not UTF-8 text (byte 8); send it as UTF-8"),
        (b"{'a': 1}", " line 1 is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"a": 1}}', " line 1 is not JSON: Extra data at column 9"),
        (b'{"b": {"a": 1, "a": 2}}', " holds the key 'a' twice; keep one"),
        (b'{"a": NaN}', " holds NaN, which JSON does not have; write a number or null"),
        (b'{"a": -Infinity}', " holds -Infinity, which JSON does not have; write a number or null"),
        (b'{"a": 1e999}', " holds the number 1e999, which is too large; write a smaller one"),
        (b'{"a": ' + b"9" * 5000 + b"}", " holds a number that is too long; write a shorter one"),
        (b"[" * 33 + b"]" * 33, " is nested more than 32 levels deep; no request needs more than six"),
        (b"[" * 100_000, " is nested more than 32 levels deep; no request needs more than six"),
    ],
    ids=range(12),
)
def test_bytes_that_cannot_be_read_are_one_line(data: bytes, rest: str) -> None:
    assert refused(data) == f"the body{rest}"


def test_bytes_are_read_as_json() -> None:
    assert json_body('\ufeff{"a": ["ü", 1, 1.5, null, true, "\\ud800"]}'.encode()) == {
        "a": ["ü", 1, 1.5, None, True, "\ud800"]
    }
    assert json_body(b"[" * 32 + b"]" * 32)
    assert json_body(b"3", "the patch") == 3


@given(st.binary() | st.text(alphabet='{}[]:,"\\ u0dNaInfity1e+-.').map(str.encode))
def test_whatever_bytes_come_are_read_or_told(data: bytes) -> None:
    try:
        json.dumps(json_body(data), allow_nan=False)
        line = ""
    except RequestError as error:
        line = str(error)

    assert len(line.splitlines()) <= 1
    assert not line or line.startswith("the body ")


@given(JSON_VALUES)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    text = json.dumps(value)
    try:
        read = json_body(text.encode())
    except RequestError:
        assert re.search("NaN|Infinity", text)
        return

    assert json.dumps(read) == text
