"""What the bodies of the service's requests may hold, as pydantic reads them and as OpenAPI documents them.

A body differs from a spec in a file: lengths are bounded, databases are registered connections that are named, and
what the service decides (its default connection, a place for results) may be left out.
"""

import ipaddress
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema
from pydantic.json_schema import models_json_schema
from pydantic_core import PydanticCustomError

from launcher.cron import Cron, MissedPolicy
from launcher.errors import CronUnreadable
from launcher.request.messages import shown
from launcher.request.parts import (
    COLUMNS,
    FEATURES,
    FOLDER,
    INPUT,
    INPUT_PATH,
    INPUT_SCHEMA,
    MODEL,
    MODEL_URI,
    OUTPUT,
    OUTPUTS,
    QUERY,
    TABLE_NAME,
    ConfigPart,
    Flavor,
    ModelPart,
    Part,
    RejectsPart,
    Remedy,
)
from launcher.state.job import STATUSES, TERMINAL, Status
from pipelines.spec import Config, Rejects
from predictors.base import Nulls
from transforms.sinks.mode import Mode

OverlapPolicy = Literal["queue", "skip", "cancel_running"]

MAX_CHARS = 4_096
MAX_QUERY_CHARS = 100_000
MAX_PATHS = 1_000
MAX_COLUMNS = 2_000
# What Kubernetes allows its labels.
_MAX_LABELS, _MAX_LABEL_CHARS = 20, 63
_MAX_CRON_CHARS = 400

_MODEL_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_CONNECTION = r"[a-z0-9][a-z0-9_-]{0,62}"
_DATABASE_URI = r"(postgresql|postgres|sqlite)://[^\x00]+"
# A host and, may be, a port, no user before it, and nothing but visible ASCII.
_HOST = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_WEBHOOK_URL = rf"https?://({_HOST}(\.{_HOST})*|\[[0-9A-Fa-f:.]+\])(:{_PORT})?([/?#][!-~]*)?"
_PYTHON_URI = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"


@dataclass(frozen=True)
class Defaults:
    """What the service fills in where a body is silent; the fields are those of `Config` and `Rejects`."""

    batch_size: int = Config.batch_size
    parallelism: int = Config.parallelism
    max_memory_gb: float = Config.max_memory_gb
    timeout_minutes: float = Config.timeout_minutes
    retry_count: int = Config.retry_count
    max_reject_ratio: float = Rejects.max_reject_ratio

    @property
    def config(self) -> Config:
        """How a job runs that does not say."""
        return Config(self.batch_size, self.parallelism, self.max_memory_gb, self.timeout_minutes, self.retry_count)

    @property
    def rejects(self) -> Rejects:
        """What becomes of the rejected rows of a job that does not say."""
        return Rejects(max_reject_ratio=self.max_reject_ratio)


DEFAULTS = Defaults()


# --- single values -------------------------------------------------------------------------------------------------


def _told(line: str) -> PydanticCustomError:
    """A mistake whose line is written already."""
    return PydanticCustomError("told", "{line}", {"line": line})


def _matching(pattern: str, line: Callable[[str], str]) -> AfterValidator:
    """Refuse texts that are not of a pattern, save what a template will become."""

    def check(value: str, info: ValidationInfo) -> str:
        is_template = "{{" in value and (info.context or {}).get("templates", False)
        if not is_template and not re.fullmatch(pattern, value):
            raise _told(line(value))
        return value

    return AfterValidator(check)


def _not_a_model_id(name: str) -> str:
    remedy = "use letters, digits, '.', '_' and '-', at most 128, a letter or digit first"
    return f"is {shown(name) if name else 'empty'}; {remedy}"


def _not_a_connection(name: str) -> str:
    # In the place of a name may stand what libpq takes: host=db password=…
    what = shown(name, secret=not re.fullmatch(r"[\w .-]+", name)) if name else "empty"
    return f"is {what}; use small letters, digits, '_' and '-', at most 63, a letter or digit first"


def _not_a_registered_connection(name: str) -> str:
    if "://" in name:
        remedy = "register it with POST /api/v1/connections and name it here"
        return f"is {shown(name)}, a URI, and here a name is wanted; {remedy}"
    return _not_a_connection(name)


def _not_a_database(uri: str) -> str:
    return f"is {shown(uri, secret=True)}; write postgresql://user:password@host/db or sqlite:////folder/file.db"


def _without_variable(uri: str) -> str:
    if "${" in uri:
        raise _told(
            f"is {shown(uri, secret=True)}, and the service fills in no variables; write the value itself, "
            "it is not shown again ($ is %24 where it belongs to a password)"
        )
    return uri


def _with_host(url: str) -> str:
    literal = re.match(r"https?://\[([^]]*)\]", url)
    if literal:
        try:
            ipaddress.IPv6Address(literal[1])
        except ValueError:
            raise _told(_not_a_webhook(url)) from None
    return url


def _not_a_webhook(url: str) -> str:
    if re.match(r"https?://[^/?#]*@", url):
        return f"is {shown(url)}, which holds a user; take it out, `secret` signs what is sent"
    return f"is {shown(url)}; write https://host/path, in ASCII"


def _readable_cron(value: str) -> str:
    try:
        Cron(value, "UTC")
    except CronUnreadable as error:
        raise _told(_of_field(error, "cron", value)) from error
    return value


def _known_timezone(value: str) -> str:
    try:
        Cron("* * * * *", value)
    except CronUnreadable as error:
        raise _told(_of_field(error, "timezone", value)) from error
    return value


def _of_field(error: CronUnreadable, name: str, value: str) -> str:
    """The error as what follows the name of its field, the value shown as everywhere."""
    line = str(error).removeprefix(f"{name} ")
    return line.replace(repr(value), shown(value), 1)


_Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]
_Columns = Annotated[list[_Text], Field(max_length=MAX_COLUMNS, json_schema_extra={"uniqueItems": True})]
_ModelId = Annotated[str, _matching(_MODEL_ID, _not_a_model_id), Field(json_schema_extra={"pattern": f"^{_MODEL_ID}$"})]
_ConnectionName = Annotated[
    str, _matching(_CONNECTION, _not_a_connection), Field(json_schema_extra={"pattern": f"^{_CONNECTION}$"})
]
_RegisteredConnection = Annotated[
    str, _matching(_CONNECTION, _not_a_registered_connection), Field(json_schema_extra={"pattern": f"^{_CONNECTION}$"})
]
_Cron = Annotated[_Text, Field(max_length=_MAX_CRON_CHARS), AfterValidator(_readable_cron)]
_Timezone = Annotated[_Text, AfterValidator(_known_timezone)]
_Label = Annotated[str, Field(max_length=_MAX_LABEL_CHARS)]
_LabelName = Annotated[str, Field(min_length=1, max_length=_MAX_LABEL_CHARS)]

_NAME: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}
_NAMES: dict[str, Any] = {
    "type": "array",
    "items": _NAME,
    "minItems": 1,
    "maxItems": MAX_COLUMNS,
    "uniqueItems": True,
}


def _names(description: str, examples: list[Any]) -> WithJsonSchema:
    """A list of names, or a mapping from names to one of them or a list."""
    mapping = {
        "type": "object",
        "propertyNames": {"minLength": 1, "maxLength": MAX_CHARS},
        "additionalProperties": {"anyOf": [_NAME, _NAMES]},
        "minProperties": 1,
        "maxProperties": MAX_COLUMNS,
    }
    return WithJsonSchema(
        {"anyOf": [_NAMES, mapping, {"type": "null"}], "description": description, "examples": examples}
    )


_CRON = Remedy("write five fields, such as 0 2 * * *")
_TIMEZONE = Remedy("write a name such as UTC or Europe/Berlin")
_ENABLED = Remedy("use true or false")
_CONNECTION_NAME = Remedy("write the name of a registered connection", shows="masked")
_DESCRIPTION = Remedy("write a text, or leave it out")
_MODEL_ID_REMEDY = Remedy("write the id of a registered model")

# A uri and a flavor that go together.
_MODEL_FORMS: dict[str, Any] = {
    "anyOf": [
        {"properties": {"flavor": {"const": "onnx"}}, "required": ["flavor"]},
        {"properties": {"uri": {"pattern": _PYTHON_URI}}},
        {"properties": {"uri": {"pattern": r"\.[oO][nN][nN][xX]$"}, "flavor": {"enum": ["onnx", None]}}},
    ]
}
_IMPORTED_FORM: dict[str, Any] = {
    "if": {"properties": {"import_path": {"type": "string"}}, "required": ["import_path"]},
    "then": {"properties": {"uri": {"pattern": _PYTHON_URI}, "flavor": {"enum": ["python", None]}}},
}
# A job has one model, and a version belongs to an id.
_ONE_MODEL: dict[str, Any] = {
    "oneOf": [
        {"properties": {"model_id": {"type": "string"}, "model": {"type": "null"}}, "required": ["model_id"]},
        {
            "properties": {
                "model": {"type": "object"},
                "model_id": {"type": "null"},
                "model_version": {"type": "null"},
            },
            "required": ["model"],
        },
    ]
}
_PATH: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_CHARS},
        {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": MAX_CHARS},
            "minItems": 1,
            "maxItems": MAX_PATHS,
        },
    ],
    "description": "A file, a glob, a folder, or a list of them; a local path or file://. In folders, Parquet files "
    "are known by their content, and names such as `day=2025-01-01` say columns.",
    "examples": ["/data/customers/*.parquet"],
}
_COLUMN_TYPES: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": MAX_CHARS},
            "maxProperties": MAX_COLUMNS,
        },
        {"type": "null"},
    ],
    "description": "Types that columns are read as, as Arrow prints them, where no value changes. Left out: the type "
    "that the files have in common; columns of folders are integers or text.",
    "examples": [{"day": "date32[day]"}],
}
_EXAMPLE: dict[str, Any] = {
    "model_id": "model-xyz789",
    "input": {
        "source": "sql",
        "query": "SELECT customer_id, tenure, monthly_charges, total_charges FROM customers",
    },
    "output": {"destination": "table", "table_name": "predictions.churn_scores", "mode": "overwrite"},
    "config": {"batch_size": 1000, "parallelism": 4, "timeout_minutes": 60},
}


# --- a job ---------------------------------------------------------------------------------------------------------


class ModelBody(ModelPart):
    """A model that is not registered: which it is, and how it is fed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra=_MODEL_FORMS)

    uri: Annotated[
        _Text,
        Field(description="A model's file, or `module:Class` for the Python flavor.", examples=["models/churn.onnx"]),
        MODEL_URI,
    ]
    flavor: Annotated[
        Flavor | None, Field(description="What loads it. May be left out where the uri tells it.", examples=["onnx"])
    ] = None
    # Checked by `model_mistakes`: a union's errors name each branch.
    features: Annotated[
        Any,
        _names(
            "The columns that the model reads, in its order, or those of each of its inputs. "
            "Left out: those named like its inputs.",
            [["tenure", "monthly_charges", "total_charges"], {"numbers": ["tenure"], "texts": ["plan"]}],
        ),
        FEATURES,
    ] = None
    nulls: Annotated[
        Nulls,
        Field(
            description="A row with a null or NaN among its features is rejected, passed on as NaN, or fails the job.",
            examples=["reject"],
        ),
    ] = "reject"
    outputs: Annotated[
        Any,
        _names(
            "The model's outputs that become columns, or a column's name for each, or names for the values of a list. "
            "Left out: all of them, under their own names.",
            [["label"], {"variable": "churn_score"}, {"probabilities": ["p_no", "p_yes"]}],
        ),
        OUTPUTS,
    ] = None


class SqlInputBody(Part):
    """The rows of one query."""

    source: Annotated[Literal["sql"], Field(description="The rows come from a database.", examples=["sql"])]
    connection: Annotated[
        _RegisteredConnection | None,
        Field(
            description="The name of a registered connection. Left out: the service's default one.",
            examples=["warehouse"],
        ),
        _CONNECTION_NAME,
    ] = None
    query: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_QUERY_CHARS,
            description="One SELECT.",
            examples=["SELECT customer_id, tenure, monthly_charges, total_charges FROM customers"],
        ),
        QUERY,
    ]


with warnings.catch_warnings():
    # As in `parts`.
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class ParquetInputBody(Part):
        """The rows of Parquet files."""

        source: Annotated[Literal["parquet"], Field(description="The rows come from files.", examples=["parquet"])]
        # Checked by `path_mistakes` and `schema_mistakes`: a union's errors name each branch.
        path: Annotated[Any, WithJsonSchema(_PATH), INPUT_PATH]
        schema: Annotated[Any, WithJsonSchema(_COLUMN_TYPES), INPUT_SCHEMA] = None


class TableOutputBody(Part):
    """A table of a database."""

    destination: Annotated[Literal["table"], Field(description="The result goes into a table.", examples=["table"])]
    connection: Annotated[
        _RegisteredConnection | None,
        Field(
            description="The name of a registered connection. Left out: the input's, or the service's default one.",
            examples=["warehouse"],
        ),
        _CONNECTION_NAME,
    ] = None
    table_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            description="`table` or `schema.table`.",
            examples=["predictions.churn_scores"],
        ),
        TABLE_NAME,
    ]
    mode: Annotated[
        Mode, Field(description="What is done to a table that is there already.", examples=["overwrite"])
    ] = "error_if_exists"
    columns: Annotated[
        _Columns | None,
        Field(description="The input columns to keep. Left out: all of them.", examples=[["customer_id"]]),
        COLUMNS,
    ] = None


class ParquetOutputBody(Part):
    """Parquet files: in a folder of yours, or kept by the service for a while."""

    destination: Annotated[Literal["parquet"], Field(description="The result goes into files.", examples=["parquet"])]
    path: Annotated[
        _Text | None,
        Field(
            description="A folder. Left out: the service keeps the result, for BATCH_RESULT_TTL_HOURS.",
            examples=["/data/scores"],
        ),
        FOLDER,
    ] = None
    mode: Annotated[
        Mode, Field(description="What is done to a folder that is there already.", examples=["overwrite"])
    ] = "error_if_exists"
    columns: Annotated[
        _Columns | None,
        Field(description="The input columns to keep. Left out: all of them.", examples=[["customer_id"]]),
        COLUMNS,
    ] = None


class RejectsBody(RejectsPart):
    """Where rejected rows go, and how many are borne."""

    path: Annotated[
        _Text | None,
        Field(description="A folder. Left out: the service keeps them with the job.", examples=["/data/rejects"]),
        FOLDER,
    ] = None


class ConfigBody(ConfigPart):
    """How the job runs; what is left out has the service's default."""


class WebhookBody(Part):
    """Who is told of the job's moves, as CloudEvents."""

    url: Annotated[
        _Text,
        _matching(_WEBHOOK_URL, _not_a_webhook),
        AfterValidator(_with_host),
        Field(
            description="Where events are POSTed to.",
            examples=["https://example.com/penstock"],
            json_schema_extra={"pattern": f"^{_WEBHOOK_URL}$"},
        ),
        Remedy("write https://host/path"),
    ]
    secret: Annotated[
        Annotated[str, Field(min_length=8, max_length=MAX_CHARS)] | None,
        Field(
            description="Signs what is sent (HMAC). Never shown again. Left out: nothing is signed.",
            examples=["correct horse battery staple"],
            json_schema_extra={"writeOnly": True},
        ),
        Remedy("write at least 8 characters", shows="nothing"),
    ] = None
    events: Annotated[
        list[Status],
        Field(
            min_length=1,
            max_length=len(STATUSES),
            description="The states that are told of.",
            examples=[["completed", "failed"]],
            json_schema_extra={"uniqueItems": True},
        ),
        Remedy("list the states to be told of"),
    ] = Field(default_factory=lambda: [status for status in STATUSES if status in TERMINAL])


class TimingBody(Part):
    """When a job runs, again and again."""

    cron: Annotated[
        _Cron,
        Field(
            description="Minute, hour, day of the month, month, day of the week, as cron has them.",
            examples=["0 2 * * *"],
        ),
        _CRON,
    ]
    timezone: Annotated[
        _Timezone, Field(description="A name of the tz database.", examples=["Europe/Berlin"]), _TIMEZONE
    ] = "UTC"
    enabled: Annotated[bool, Field(description="Whether it runs.", examples=[True]), _ENABLED] = True
    missed: Annotated[
        MissedPolicy,
        Field(
            description="What becomes of runs that were due while the service was down: the last of them, or none.",
            examples=["run_once"],
        ),
    ] = "run_once"
    overlap: Annotated[
        OverlapPolicy,
        Field(
            description="What a run does while the one before is not over: wait, not run, or cancel that one.",
            examples=["queue"],
        ),
    ] = "queue"


class ScheduledJobBody(Part):
    """A job as each run of a schedule submits it; its texts may hold `{{ scheduled_at }}`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra=_ONE_MODEL)

    model_id: Annotated[
        _ModelId | None,
        Field(description="The id of a registered model; in its place, `model`.", examples=["model-xyz789"]),
        _MODEL_ID_REMEDY,
    ] = None
    model_version: Annotated[
        # The largest number that a column of the store holds.
        Annotated[int, Field(ge=1, le=2_147_483_647)] | None,
        Field(description="Which version of the registered model. Left out: the latest.", examples=[3]),
        Remedy("use a whole number from 1 to 2147483647"),
    ] = None
    model: Annotated[
        ModelBody | None, Field(description="A model that is not registered; in its place, `model_id`."), MODEL
    ] = None
    input: Annotated[
        SqlInputBody | ParquetInputBody,
        Field(discriminator="source", description="Where the rows are."),
        INPUT,
    ]
    output: Annotated[
        TableOutputBody | ParquetOutputBody | None,
        Field(
            discriminator="destination",
            description="Where the rows go. Left out: Parquet files that the service keeps for a while.",
        ),
        OUTPUT,
    ] = None
    rejects: Annotated[RejectsBody, Field(description="What becomes of rejected rows.")] = Field(
        default_factory=RejectsBody
    )
    config: Annotated[ConfigBody, Field(description="How the job runs.")] = Field(default_factory=ConfigBody)
    webhook: Annotated[
        WebhookBody | None,
        Field(description="Who is told of the job's moves."),
        Remedy("write url, secret and events", shows="nothing"),
    ] = None
    labels: Annotated[
        dict[_LabelName, _Label],
        Field(max_length=_MAX_LABELS, description="Words of yours, to find jobs by.", examples=[{"team": "growth"}]),
        Remedy("write names and texts", each=f"write a text of at most {_MAX_LABEL_CHARS} characters"),
    ] = Field(default_factory=dict)
    name: Annotated[
        Annotated[str, Field(min_length=1, max_length=200)] | None,
        Field(description="What you call the job.", examples=["churn, daily"]),
        Remedy("write a text of at most 200 characters"),
    ] = None


class JobBody(ScheduledJobBody):
    """A job to be run now or, with `schedule`, again and again."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={**_ONE_MODEL, "examples": [_EXAMPLE]})

    schedule: Annotated[
        TimingBody | None, Field(description="When to run it. Left out: now, and once."), Remedy("write cron")
    ] = None


# --- what is registered --------------------------------------------------------------------------------------------


class RegisteredModelBody(ModelBody):
    """A model, or a new version of one, under an id that jobs name."""

    model_config: ClassVar[ConfigDict] = ConfigDict(json_schema_extra={**_MODEL_FORMS, **_IMPORTED_FORM})

    model_id: Annotated[
        _ModelId,
        Field(description="What jobs call it.", examples=["churn"]),
        Remedy("write what jobs will call it"),
    ]
    import_path: Annotated[
        _Text | None,
        Field(description="The folder that the module is imported from; Python flavor only.", examples=["/models"]),
        FOLDER,
    ] = None
    description: Annotated[
        Annotated[str, Field(max_length=MAX_CHARS)] | None,
        Field(description="For people.", examples=["Churn within 30 days, trained in March"]),
        _DESCRIPTION,
    ] = None


class ConnectionBody(Part):
    """A database, under a name that jobs use; the uri is a secret and never shown again."""

    name: Annotated[
        _ConnectionName, Field(description="What jobs call it.", examples=["warehouse"]), Remedy("write a name")
    ]
    uri: Annotated[
        _Text,
        _matching(_DATABASE_URI, _not_a_database),
        AfterValidator(_without_variable),
        Field(
            description="Where it is and who logs in.",
            examples=["postgresql://scorer:secret@db.example.com/warehouse"],
            json_schema_extra={"writeOnly": True, "pattern": rf"^(?![^\x00]*\$\{{){_DATABASE_URI}$"},
        ),
        Remedy("write postgresql://user:password@host/db or sqlite:////folder/file.db", shows="masked"),
    ]
    description: Annotated[
        Annotated[str, Field(max_length=MAX_CHARS)] | None,
        Field(description="For people.", examples=["The warehouse's read replica"]),
        _DESCRIPTION,
    ] = None


class ScheduleBody(Part):
    """A job that runs again and again."""

    name: Annotated[
        Annotated[str, Field(min_length=1, max_length=200)] | None,
        Field(description="What you call the schedule.", examples=["churn, daily"]),
        Remedy("write a text of at most 200 characters"),
    ] = None
    schedule: Annotated[TimingBody, Field(description="When the job runs."), Remedy("write cron")]
    job: Annotated[
        ScheduledJobBody,
        Field(description="What each run submits."),
        Remedy("write the body of a job, without its schedule"),
    ]


class ScheduleChangeBody(Part):
    """What is to change of a schedule; what is left out stays as it is."""

    cron: Annotated[
        _Cron | None,
        Field(description="Minute, hour, day of the month, month, day of the week.", examples=["30 4 * * MON"]),
        _CRON,
    ] = None
    timezone: Annotated[
        _Timezone | None, Field(description="A name of the tz database.", examples=["Europe/Berlin"]), _TIMEZONE
    ] = None
    enabled: Annotated[bool | None, Field(description="Whether it runs.", examples=[False]), _ENABLED] = None
    missed: Annotated[
        MissedPolicy | None,
        Field(description="What becomes of runs that were due while the service was down.", examples=["skip"]),
    ] = None
    overlap: Annotated[
        OverlapPolicy | None,
        Field(description="What a run does while the one before is not over.", examples=["skip"]),
    ] = None
    job: Annotated[
        ScheduledJobBody | None,
        Field(description="What each run submits from now on, as a whole."),
        Remedy("write the body of a job, without its schedule"),
    ] = None


# --- as OpenAPI has them -------------------------------------------------------------------------------------------

_BODIES: tuple[type[Part], ...] = (JobBody, RegisteredModelBody, ConnectionBody, ScheduleBody, ScheduleChangeBody)


def schemas(defaults: Defaults = DEFAULTS) -> dict[str, dict[str, Any]]:
    """The JSON schemas of all bodies and their parts, by name, for `components.schemas` of OpenAPI 3.1.

    They refer to each other as `#/components/schemas/<name>`. They take what the bodies take, with two exceptions:
    whether a cron expression or a timezone can be read, no schema can say; and a name in a scheduled job may be a
    template, which the pattern of names does not have.

    Args:
        defaults: what the service fills in; told as defaults.
    """
    named = _schemas()
    named["ConfigBody"]["properties"] = {
        name: {**named["ConfigBody"]["properties"][name], "default": getattr(defaults.config, name)}
        for name in (each.name for each in fields(Config))
    }
    ratio = named["RejectsBody"]["properties"]["max_reject_ratio"]
    named["RejectsBody"]["properties"]["max_reject_ratio"] = {**ratio, "default": defaults.rejects.max_reject_ratio}
    return named


def schema_of(name: str, defaults: Defaults = DEFAULTS) -> dict[str, Any]:
    """One of `schemas`, such as `JobBody`.

    Raises:
        KeyError: there is none of this name.
    """
    return schemas(defaults)[name]


def _schemas() -> dict[str, dict[str, Any]]:
    _, found = models_json_schema(
        [(body, "validation") for body in _BODIES], ref_template="#/components/schemas/{model}"
    )
    return {name: _tidied(schema) for name, schema in found["$defs"].items()}


def _tidied(schema: Any) -> Any:
    """Without what says nothing, and with what holds for every text: no NUL."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {
        key: value if key in ("examples", "const", "enum", "required") else _tidied(value)
        for key, value in schema.items()
        # A title that pydantic made of a field's name; a default of null.
        if not (key == "title" and isinstance(value, str)) and not (key == "default" and value is None)
    }
    if tidy.get("type") == "string" and not {"const", "enum", "pattern"} & tidy.keys():
        tidy["pattern"] = r"^[^\x00]*$"
    return tidy
