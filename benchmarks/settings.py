"""How much is measured: the sizes and rounds of a full run and of a quick one."""

from dataclasses import dataclass

from benchmarks.data import MI


@dataclass(frozen=True)
class Sizes:
    """The rows of the two runs whose difference is a program's speed."""

    small: int
    large: int


@dataclass(frozen=True)
class ServiceSizes:
    """How much a service is given: finished jobs in its store, seconds of each load, POSTs, and jobs to start."""

    jobs: int
    seconds: int
    submits: int
    starts: int


@dataclass(frozen=True)
class Settings:
    """What one run of the benchmarks was asked for."""

    quick: bool
    rounds: int
    parallelism: int  # of Penstock, where a comparison does not fix it
    with_penstock: bool
    patience_s: float  # how long each run may wait for a quiet machine

    @property
    def files(self) -> Sizes:
        """Parquet to Parquet; 20 Mi rows apart are some 3 seconds of the fastest program."""
        return Sizes(MI, 5 * MI) if self.quick else Sizes(2 * MI, 22 * MI)

    @property
    def row_elements(self) -> Sizes:
        """The same for stock Beam, which takes a minute where the others take one second."""
        return Sizes(MI // 16, MI // 4) if self.quick else Sizes(MI // 8, MI)

    @property
    def tables(self) -> Sizes:
        """PostgreSQL to PostgreSQL."""
        return Sizes(MI // 8, MI) if self.quick else Sizes(MI, 5 * MI)

    @property
    def memory(self) -> Sizes:
        """The two sizes whose peaks are compared."""
        return Sizes(2 * MI, 8 * MI) if self.quick else Sizes(5 * MI, 50 * MI)

    @property
    def service(self) -> ServiceSizes:
        """The service; p99 of 6,000 requests rests on the 60 slowest."""
        return ServiceSizes(5_000, 3, 50, 3) if self.quick else ServiceSizes(100_000, 30, 1_000, 10)
