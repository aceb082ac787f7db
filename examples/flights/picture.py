"""Draw how well the delays were predicted, and say in a few lines what the jobs did.

    python -m examples.flights.picture DIR

reads the folders `DIR/scores` and `DIR/rejects` that Penstock wrote, and writes `DIR/delays.png`. Only October to
December are drawn: the model has never seen them.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

Minutes = npt.NDArray[np.float64]

FIRST_HELD_OUT_MONTH = 10

INK, QUIET, PAPER = "#1b2a38", "#5d6b78", "#ffffff"
MODEL, RULE, USUAL = "#0f6e84", "#d9a648", "#d1495b"
WATER = LinearSegmentedColormap.from_list("water", ["#dff0f2", "#7cc0cb", "#1f8298", "#0c4a63", "#0b2239"])

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b8c2ca",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
}


@dataclass(frozen=True)
class HeldOut:
    """The flights the model never saw: minutes late when they left, when they landed, and as predicted."""

    left: Minutes
    landed: Minutes
    predicted: Minutes

    @property
    def missed(self) -> Minutes:
        """By how much the model is wrong."""
        return np.abs(self.predicted - self.landed)

    @property
    def missed_by_rule(self) -> Minutes:
        """By how much one is wrong who takes the departure delay for the arrival delay."""
        return np.abs(self.left - self.landed)

    @property
    def r_squared(self) -> float:
        """The share of the variance of the real delay that the prediction accounts for."""
        return float(1 - np.mean((self.predicted - self.landed) ** 2) / np.var(self.landed))


def main() -> None:
    """Draw the picture and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where scores and rejects lie; the picture goes there")
    folder: Path = parser.parse_args().folder

    scores = read_folder(folder / "scores")
    rejects = read_folder(folder / "rejects")
    flights = held_out(scores)
    draw(flights).savefig(folder / "delays.png", dpi=150)
    print(summary(scores, rejects, flights))
    print(f"Picture  {folder / 'delays.png'}")


def read_folder(folder: Path) -> pa.Table:
    """Read the Parquet files of a folder as one table.

    Raises:
        SystemExit: there are none.
    """
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise SystemExit(f"{folder} holds no Parquet files: run `penstock run examples/flights/to_parquet.yaml` first.")
    return pa.concat_tables([pq.read_table(file) for file in files])


def held_out(scores: pa.Table) -> HeldOut:
    """Take the flights of October to December; those that never arrived have no delay to compare with."""
    late = scores.filter((pc.field("month") >= FIRST_HELD_OUT_MONTH) & pc.field("arr_delay").is_valid())
    left, landed, predicted = (
        late[name].to_numpy().astype(np.float64) for name in ("dep_delay", "arr_delay", "predicted_arr_delay")
    )
    return HeldOut(left, landed, predicted)


def draw(flights: HeldOut) -> Figure:
    """Draw real against predicted delay, and beside it the error by how late the flight left."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13, 7.2), facecolor=PAPER)
        # Left, bottom, width, height as shares of the figure; the first panel comes out square.
        cloud = figure.add_axes((0.065, 0.095, 0.3766, 0.68))
        errors = figure.add_axes((0.6, 0.095, 0.36, 0.64))
        _write_title(figure, flights)
        _draw_cloud(cloud, flights)
        _draw_errors(errors, flights)
    return figure


def _write_title(figure: Figure, flights: HeldOut) -> None:
    figure.text(0.035, 0.92, "How late will it land?", fontsize=24, fontweight="bold")
    told = (
        f"{len(flights.landed):,} flights out of New York, October to December 2013, predicted as they left the gate. "
        "The model learned from January to September."
    )
    figure.text(0.035, 0.877, told, fontsize=11.5, color=QUIET)


def _draw_cloud(axes: Axes, flights: HeldOut) -> None:
    low, high = -60, 240
    hexagons = axes.hexbin(
        flights.predicted,
        flights.landed,
        gridsize=(75, 43),
        extent=(low, high, low, high),
        norm=LogNorm(),
        cmap=WATER,
        mincnt=1,
        linewidths=0.15,
    )
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle=(0, (5, 4)), label="as predicted")
    at, usual = _usual_delay(flights)
    axes.plot(at, usual, color=PAPER, linewidth=3.6)
    axes.plot(at, usual, color=USUAL, linewidth=1.8, label="median of the real delay")
    axes.set(xlim=(low, high), ylim=(low, high), xlabel="predicted arrival delay, minutes")
    axes.set_ylabel("real arrival delay, minutes", labelpad=2)
    axes.set_xticks(range(low, high + 1, 60))
    axes.set_yticks(range(low, high + 1, 60))
    title = f"Off by {flights.missed.mean():.2f} min on average, R² {flights.r_squared:.3f}"
    axes.set_title(title, loc="left", fontsize=12.5, fontweight="bold", pad=14)
    both = np.stack([flights.landed, flights.predicted])
    outside = np.any((both < low) | (both > high), axis=0).mean()
    axes.text(high, low + 5, f"{outside:.1%} of the flights lie outside", ha="right", color=QUIET, fontsize=9.5)
    axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.25), frameon=False, fontsize=9.5, labelcolor=QUIET)
    _draw_colour_scale(axes, hexagons)


def _draw_colour_scale(axes: Axes, hexagons: PolyCollection) -> None:
    """Put the scale where no flight is: hardly one lands an hour before the prediction."""
    place = axes.inset_axes((0.61, 0.15, 0.38, 0.022))
    numbers = FuncFormatter(lambda count, _: f"{count:,.0f}")
    scale = axes.figure.colorbar(hexagons, cax=place, orientation="horizontal", format=numbers)
    scale.outline.set_visible(False)
    scale.ax.minorticks_off()
    scale.ax.tick_params(labelsize=9, length=2)
    scale.ax.set_title("flights in a hexagon", fontsize=9.5, color=QUIET, loc="left", pad=4)


def _usual_delay(flights: HeldOut) -> tuple[Minutes, Minutes]:
    """Give the median real delay for every 10 minutes of predicted delay, up to 3 hours."""
    slots = np.arange(-40, 181, 10)
    slot = np.digitize(flights.predicted, slots) - 1
    # Fewer than 30 flights make no median worth a line.
    worth = [number for number in range(len(slots) - 1) if np.sum(slot == number) >= 30]
    return slots[worth] + 5.0, np.array([np.median(flights.landed[slot == number]) for number in worth])


def _draw_errors(axes: Axes, flights: HeldOut) -> None:
    left = [
        "over 5 min early",
        "up to 5 min early",
        "0 to 14 min late",
        "15 to 59 min late",
        "1 to 2 hours late",
        "over 2 hours late",
    ]
    bucket = np.digitize(flights.left, [-5, 0, 15, 60, 120])
    rows = np.arange(len(left))
    # Upwards: first how the rule does, then the model over it.
    for missed, colour, at, label in (
        (flights.missed, MODEL, rows + 0.19, "the model"),
        (flights.missed_by_rule, RULE, rows - 0.19, "the rule “it lands as late as it left”"),
    ):
        means = [missed[bucket == row].mean() for row in rows]
        bars = axes.barh(at, means, height=0.36, color=colour, label=label)
        axes.bar_label(bars, fmt="%.1f", padding=5, color=INK, fontsize=10)

    axes.set_yticks(rows, [f"{name}\n{np.sum(bucket == row):,} flights" for row, name in enumerate(left)])
    axes.set_xlabel("minutes off, on average")
    axes.margins(x=0.1, y=0.03)
    axes.tick_params(axis="y", length=0, pad=8)
    title = "Minutes off, by how late the flight left the gate"
    axes.set_title(title, loc="left", x=-0.33, fontsize=12.5, fontweight="bold", pad=36)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.35, 1), ncols=2, frameon=False, handlelength=1, fontsize=10.5)


def summary(scores: pa.Table, rejects: pa.Table, flights: HeldOut) -> str:
    """Say what was scored, what was rejected and why, and how good the predictions are."""
    reasons = Counter(zip(rejects["error_type"].to_pylist(), rejects["error"].to_pylist(), strict=True))
    lines = [
        f"Scored   {len(scores):,} of {len(scores) + len(rejects):,} flights",
        f"Rejected {len(rejects):,}",
        *(f"         {count:,} x {kind}: {error}" for (kind, error), count in reasons.most_common(3)),
        f"Held out {len(flights.landed):,} flights, October to December",
        f"         off by {flights.missed.mean():5.2f} min on average: the model",
        f"         off by {flights.missed_by_rule.mean():5.2f} min on average: the rule “it lands as late as it left”",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
