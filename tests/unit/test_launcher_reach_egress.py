"""Hosts that may be reached on a tenant's behalf: judged by addresses, however they are written."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from psycopg import pq

from launcher.errors import AddressForbidden, HostUnknown, SettingWrong, UriForbidden
from launcher.reach.egress import Egress, Lookups, look_up
from launcher.worker.failures import is_passing
from tests.servers import Postgres
from transforms.connection import Connection

NO_SECRETS: dict[str, str] = {}


def leading_to(*addresses: str) -> Callable[[str, int], Sequence[str]]:
    """A resolver that knows one answer."""
    return lambda host, port: addresses


def parsed(uri: str) -> dict[str, str]:
    return {
        each.keyword.decode(): each.val.decode() for each in pq.Conninfo.parse(uri.encode()) if each.val is not None
    }


FORBIDDEN = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.1.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100::1",
    "64:ff9b:1::7f00:1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    # Teredo: the server, and the client with its bits turned over.
    "2001:0:7f00:1::f7f7:f7f7",
    "2001:0:808:808::80ff:fffe",
]
ALLOWED = [
    "8.8.8.8",
    "10.0.0.5",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "2606:4700::1111",
    "fd12:3456::1",
    "::ffff:10.0.0.5",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("among", [(), ("10.0.0.5",)], ids=["alone", "behind a harmless one"])
def test_a_name_that_leads_to_a_forbidden_address_is_refused(address: str, among: tuple[str, ...]) -> None:
    egress = Egress(look_up=leading_to(*among, address))

    with pytest.raises(AddressForbidden) as caught:
        egress.resolve("db.example.com", 5432)
    line = str(caught.value)
    assert re.fullmatch(
        r"host 'db\.example\.com' leads to (this machine|an? .*); name another host, or have it .*", line
    )
    # Where the names of a network lead is not for everybody to know.
    assert address not in line


@pytest.mark.parametrize("address", ALLOWED)
def test_the_net_and_private_networks_may_be_reached(address: str) -> None:
    [resolved] = Egress(look_up=leading_to(address, address)).resolve("db.example.com", 5432)

    assert resolved == address.removeprefix("::ffff:").replace("64:ff9b::8.8.8.8", "64:ff9b::808:808")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "localhost",
        "LOCALHOST",
        "LocalHost",
        "ｌocalhost",
        "127。0。0。1",
        "::1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "::ffff:7f00:1",
        "[::ffff:169.254.169.254]",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
    ],
)
def test_odd_spellings_of_forbidden_addresses_lead_where_they_lead(host: str) -> None:
    with pytest.raises(AddressForbidden, match="leads to"):
        Egress().resolve(host, 80)


@pytest.mark.parametrize("host", ["localhost.", "%31%32%37.0.0.1", "127.0.0.1%00", "a..b", "x" * 70, "127.0.0.1."])
def test_what_the_resolver_cannot_read_is_not_reached(host: str) -> None:
    # Resolvers differ in the trailing dot; either way it leads nowhere.
    with pytest.raises((HostUnknown, AddressForbidden)):
        Egress().resolve(host, 80)


@pytest.mark.parametrize(
    "host", ["", "[]", "a b", "127.0.0.1\n", "a\0b", "u@localhost", "h/x", "h?x", "h#x", "h\\x", "\ud800", "x" * 254]
)
def test_what_can_be_no_host_is_never_looked_up(host: str) -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    with pytest.raises(AddressForbidden, match=r"is no host; name one such as db\.example\.com$"):
        Egress(look_up=never).resolve(host, 80)


def test_a_host_without_an_address_is_told() -> None:
    with pytest.raises(HostUnknown, match=r"^host 'nowhere.invalid' has no address; check its spelling$"):
        Egress().resolve("nowhere.invalid", 80)
    with pytest.raises(HostUnknown):
        Egress(look_up=leading_to()).resolve("db.example.com", 80)


@pytest.mark.parametrize(
    ("setting", "host", "address"),
    [
        ("localhost", "localhost", "127.0.0.1"),
        ("localhost", "LOCALHOST.", "::1"),
        ("LocalHost", "localhost", "::1"),
        ("127.0.0.1", "db.example.com", "127.0.0.1"),
        ("127.0.0.1", "db.example.com", "::ffff:127.0.0.1"),
        ("127.0.0.0/8", "db.example.com", "127.4.5.6"),
        ("127.0.0.0/8", "db.example.com", "64:ff9b::7f04:506"),
        ("10.0.0.1, ::1", "db.example.com", "::1"),
        ("[::1]", "db.example.com", "::1"),
        ("fe80::/10", "db.example.com", "fe80::1%eth0"),
        ("db.example.com", "db.example.com", "127.0.0.1"),
        ("*.example.com", "db.example.com", "127.0.0.1"),
        ("*.example.com", "a.db.Example.com.", "127.0.0.1"),
        (" , other.host,*.example.com ,", "db.example.com", "127.0.0.1"),
        ("*", "db.example.com", "169.254.169.254"),
        ("a_b.internal", "a_b.internal", "127.0.0.1"),
    ],
)
def test_what_is_allowed_may_be_reached(setting: str, host: str, address: str) -> None:
    assert len(replace(Egress.read(setting), look_up=leading_to(address)).resolve(host, 1)) == 1


@pytest.mark.parametrize(
    ("setting", "host", "address"),
    [
        ("", "localhost", "127.0.0.1"),
        ("localhost", "db.example.com", "127.0.0.1"),
        ("localhost", "notlocalhost", "127.0.0.1"),
        ("127.0.0.1", "db.example.com", "127.0.0.2"),
        ("*.example.com", "example.com", "127.0.0.1"),
        ("*.example.com", "evilexample.com", "127.0.0.1"),
        ("*.example.com", "db.example.com.evil.net", "127.0.0.1"),
        ("db.example.com", "other.db.example.com", "127.0.0.1"),
        ("10.0.0.0/8", "db.example.com", "127.0.0.1"),
    ],
)
def test_what_is_allowed_opens_nothing_else(setting: str, host: str, address: str) -> None:
    with pytest.raises(AddressForbidden):
        replace(Egress.read(setting), look_up=leading_to(address)).resolve(host, 1)


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://host", "host:5432", "*", "*.", "ho st", "*.*.x", "a/b", "**"])
def test_a_setting_that_cannot_be_read_is_told(entry: str) -> None:
    with pytest.raises(
        SettingWrong, match=r"^PENSTOCK_ALLOWED_HOSTS holds '.*'; use host names, \*\.suffix, addresses or"
    ):
        Egress((entry,))


DNS = {"db": ["10.0.0.5"], "two": ["10.0.0.6", "10.0.0.7"], "evil": ["127.0.0.1"], "10.0.0.9": ["10.0.0.9"]}


def by_dns(host: str, port: int) -> list[str]:
    # Addresses are read by the machine itself.
    return DNS.get(host) or look_up(host, port)


PUBLIC = Egress(look_up=by_dns)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://u:p@db/x", {"host": "db", "hostaddr": "10.0.0.5"}),
        ("postgres://u:p@db:6543/x", {"host": "db", "hostaddr": "10.0.0.5", "port": "6543"}),
        (
            "postgresql://u:p@two:1,db/x?target_session_attrs=read-write",
            {
                "host": "two,two,db",
                "hostaddr": "10.0.0.6,10.0.0.7,10.0.0.5",
                "port": "1,1,",
                "target_session_attrs": "read-write",
            },
        ),
        ("postgresql://u:p@evil/x?host=db", {"host": "db", "hostaddr": "10.0.0.5"}),
        ("postgresql://u:p@evil/x?hostaddr=10.0.0.9", {"host": "evil", "hostaddr": "10.0.0.9"}),
        ("postgresql:///x?user=u&password=p&host=db&port=7", {"host": "db", "hostaddr": "10.0.0.5", "port": "7"}),
        (
            "postgresql://u:p@db/x?sslrootcert=system&sslmode=verify-full",
            {"sslrootcert": "system", "sslmode": "verify-full"},
        ),
        ("postgresql://u:p@db/x?options=-c%20search_path%3Da%2Cb", {"options": "-c search_path=a,b"}),
        ("postgresql://u:%40%2F%3A%3F%25%20%C3%A9@db/x%2Fy", {"password": "@/:?% é", "dbname": "x/y"}),
        (
            "postgresql://u:p@[2606:4700::1111]:1/x",
            {"host": "2606:4700::1111", "hostaddr": "2606:4700::1111", "port": "1"},
        ),
        ("postgresql://db", {"host": "db", "hostaddr": "10.0.0.5"}),
    ],
)
def test_a_connection_that_may_be_is_pinned_to_the_addresses_judged(uri: str, expected: dict[str, str]) -> None:
    pinned = parsed(PUBLIC.pin_connection(uri, NO_SECRETS))

    assert expected.items() <= pinned.items()
    # Nothing else has changed, and it stays so.
    for name in {*parsed(uri), *pinned} - {"host", "hostaddr", "port"}:
        assert pinned.get(name) == parsed(uri).get(name), name
    assert parsed(PUBLIC.pin_connection(PUBLIC.pin_connection(uri, NO_SECRETS), NO_SECRETS)) == pinned


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u:p@evil/x",
        "postgresql://u:p@127.0.0.1/x",
        "postgresql://u:p@2130706433/x",
        "postgresql://u:p@%31%32%37.0.0.1/x",
        "postgresql://u:p@LOCALHOST/x",
        "postgresql://u:p@[::ffff:127.0.0.1]:5432/x",
        "postgresql://u:p@db,evil/x",
        "postgresql://u:p@db/x?host=evil",
        "postgresql://u:p@db/x?host=db&host=evil",
        "postgresql://u:p@db/x?host=db%2Cevil",
        "postgresql://u:p@db/x?hostaddr=127.0.0.1",
        "postgresql://u:p@db/x?hostaddr=127.1",
        "postgresql://u:p@db/x?%68ostaddr=127.0.0.1",
        "postgresql://u:p@db,two/x?hostaddr=10.0.0.9,127.0.0.1",
    ],
)
def test_a_connection_to_a_forbidden_address_is_refused(uri: str) -> None:
    with pytest.raises(
        AddressForbidden, match="leads to this machine; name another host, or have it allowed by PENSTOCK"
    ):
        PUBLIC.check_connection(uri, NO_SECRETS)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql:///x",
        "postgresql://u:p@/x",
        "postgresql://u:p@:5432/x",
        "postgresql://%2Fvar%2Frun%2Fpostgresql/x",
        "postgresql:///x?host=/var/run/postgresql",
        "postgresql:///x?host=@abstract",
        "postgresql://db,%2Frun/x",
        "postgresql://db,/x",
        "postgresql://db/x?host=",
    ],
)
def test_sockets_are_for_those_who_may_reach_localhost(uri: str) -> None:
    with pytest.raises(
        UriForbidden, match=r"^the URI leads to a socket of this machine; name a host, or have localhost all"
    ):
        PUBLIC.check_connection(uri, NO_SECRETS)

    pinned = parsed(Egress(("localhost",), look_up=by_dns).pin_connection(uri, NO_SECRETS))
    assert pinned.get("host", "").removeprefix("db,") == parsed(uri).get("host", "").removeprefix("db,")


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("mysql://u:secret@db/x", "scheme 'mysql' is not known; write postgresql://user:password@host/database"),
        ("POSTGRESQL://u:secret@db/x", "scheme 'POSTGRESQL' is not known; write postgresql://"),
        ("file:///etc/passwd", "scheme 'file' is not known; write"),
        ("host=db password=secret", "it is no URI; write"),
        ("", "it is no URI; write"),
        (" postgresql://u:secret@db/x", "it is no URI; write"),
        (
            "${DATABASE_URL}",
            "the URI holds ${…}, and the service's environment is not for jobs; write the value itself",
        ),
        ("postgresql://u:${SECRET}@db/x", "the URI holds ${…}"),
        ("postgresql://u:sec\0ret@db/x", "the URI holds a control character; write it percent-encoded"),
        ("postgresql://u:secret@db/x\n", "the URI holds a control character"),
        ("postgresql://u:\ud800secret@db/x", "the URI holds a control character"),
        (
            "postgresql://u:sec%zzret@db/x",
            "the URI cannot be read; write postgresql://user:password@host:5432/database, and",
        ),
        ("postgresql://u:sec%ffret@db/x", "the URI is not UTF-8 once its percent-encoding is undone; write it so"),
        (
            "postgresql://u:secret@db/x?passfile=/etc/shadow",
            "the URI has the parameter passfile, which is not for jobs;",
        ),
        (
            "postgresql://u:secret@db/x?sslkey=/k",
            "the URI has the parameter sslkey, which is not for jobs; leave it out",
        ),
        ("postgresql://u:secret@db/x?sslcert=/k", "the URI has the parameter sslcert, which"),
        ("postgresql://u:secret@db/x?sslrootcert=/k", "the URI has the parameter sslrootcert, which"),
        ("postgresql://u:secret@db/x?sslrootcert=systems", "the URI has the parameter sslrootcert, which"),
        ("postgresql://u:secret@db/x?sslcrl=/k", "the URI has the parameter sslcrl, which"),
        ("postgresql://u:secret@db/x?sslcrldir=/k", "the URI has the parameter sslcrldir, which"),
        ("postgresql://u:secret@db/x?service=other", "the URI has the parameter service, which"),
        ("postgresql://u:secret@db/x?%73ervice=other", "the URI has the parameter service, which"),
        ("postgresql://u:secret@db/x?gssdelegation=1", "the URI has the parameter gssdelegation, which"),
        ("postgresql://u:secret@db/x?krbsrvname=x", "the URI has the parameter krbsrvname, which"),
        ("postgresql://u:secret@db/x?requirepeer=x", "the URI has the parameter requirepeer, which"),
        ("postgresql://u:secret@db/x?replication=1", "the URI has the parameter replication, which"),
        ("postgresql://u:secret@db/x?servicefile=/k", "the URI has a"),
        ("postgresql://u:secret@db/x?sslkeylogfile=/k", "the URI has "),
        (
            "postgresql://u:secret@db/x?PASSFILE=/k",
            "the URI has a parameter PASSFILE, which is not known; leave it out",
        ),
        ("postgresql://u:secret@db/x?bogus=1", "the URI has a parameter bogus, which is not known; leave it out"),
        ("postgresql://u:secret@db/host%3D%2Frun", "the URI's database cannot have such a name; name another"),
        ("postgresql://u:secret@db/postgresql%3A%2F%2Fevil", "the URI's database cannot have such a name"),
        ("postgresql://u:secret@db:0/x", "the URI has a port that cannot be; use one from 1 to 65535"),
        ("postgresql://u:secret@db:65536/x", "the URI has a port that cannot be"),
        ("postgresql://u:secret@db:5x/x", "the URI has a port that cannot be"),
        ("postgresql:///x?host=/run&port=5%2F..&password=secret", "the URI has a port that cannot be"),
        (
            "postgresql://u:secret@db,two/x?hostaddr=10.0.0.9",
            "the URI names hosts, addresses and ports that do not pair;",
        ),
        ("postgresql://u:secret@db/x?port=1,2", "the URI names hosts, addresses and ports that do not pair"),
        ("postgresql://u:secret@db%0A/x", "the URI has a control character in its host; leave it out"),
    ],
)
def test_other_ways_to_connect_are_refused_without_repeating_secrets(uri: str, line: str) -> None:
    with pytest.raises(UriForbidden) as caught:
        Egress(("localhost",), look_up=by_dns).check_connection(uri, NO_SECRETS)

    assert str(caught.value).startswith(line)
    assert not any(part in repr(caught.value) for part in ("secret", "SECRET", "sec%", "ret@", "\n"))


@pytest.mark.parametrize("name", ["PGPASSWORD", "PGPASSFILE", "PGSERVICE"])
@pytest.mark.parametrize("uri", ["postgresql://u@db/x", "postgresql://u:@db/x", "postgresql://u@db/x?password="])
def test_the_services_own_password_is_not_sent_for_a_tenant(uri: str, name: str) -> None:
    with pytest.raises(UriForbidden, match=r"^the URI has no password, and the service's own would be sent; write one"):
        PUBLIC.check_connection(uri, {name: "x"})

    PUBLIC.check_connection("postgresql://u:p@db/x", {name: "x"})
    PUBLIC.check_connection(uri, {"PGUSER": "x"})


def test_nor_is_the_one_of_its_home_folder(tmp_path: os.PathLike[str]) -> None:
    environment = {"HOME": str(tmp_path)}
    PUBLIC.check_connection("postgresql://u@db/x", environment)
    with open(os.path.join(tmp_path, ".pgpass"), "w"):
        pass

    with pytest.raises(UriForbidden, match="the service's own would be sent"):
        PUBLIC.check_connection("postgresql://u@db/x", environment)


def test_a_name_that_leads_elsewhere_later_is_not_asked_again() -> None:
    answers = [["10.0.0.5"], ["127.0.0.1"]]
    egress = Egress(look_up=lambda host, port: answers.pop(0))

    assert parsed(egress.pin_connection("postgresql://u:p@db/x", NO_SECRETS))["hostaddr"] == "10.0.0.5"
    assert answers == [["127.0.0.1"]]


def test_a_pinned_connection_opens(postgres: Postgres) -> None:
    uri = postgres.database().replace("127.0.0.1", "db.example.com,db.example.com") + "?application_name=a%20b"
    egress = Egress(("127.0.0.1",), look_up=leading_to("127.0.0.1"))
    uri = uri.replace("db.example.com,", f"db.example.com:{postgres.port},")

    with Connection(egress.pin_connection(uri, NO_SECRETS)).open() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('application_name')")
        shown = cursor.fetchone()

    assert shown == ("a b",)


def test_the_systems_resolver_is_asked() -> None:
    assert "127.0.0.1" in look_up("localhost", 80)
    assert set(look_up("localhost", 80)) <= {
        str(answer[4][0]) for answer in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    }


# --- resolvers that hang -----------------------------------------------------------------------------------------


class Hanging:
    """A resolver that answers no name that begins with `slow` until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        self._lock = threading.Lock()
        self.going = 0

    def __call__(self, host: str, port: int) -> list[str]:
        with self._lock:
            self.asked.append(host)
            self.going += 1
        if host.startswith("slow"):
            self.go.wait()
        with self._lock:
            self.going -= 1
        return ["10.0.0.5"]

    def wait_for(self, going: int) -> None:
        """Wait until so many are looked up, and see that it is no more."""
        deadline = time.monotonic() + 20
        while self.going < going:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert self.going == going


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    resolver = Hanging()
    yield resolver
    resolver.go.set()


def test_a_resolver_that_hangs_holds_nobody_for_long(hanging: Hanging) -> None:
    # Long enough for the one that answers, on a busy machine.
    egress = Egress(look_up=hanging, patience_s=0.8)
    began = time.monotonic()
    with pytest.raises(HostUnknown, match=r"^the address of host 'slow-1' cannot be found out at the moment") as caught:
        egress.pin_connection("postgresql://u:p@db,slow-1,slow-2,slow-3/x", NO_SECRETS)
    with pytest.raises(HostUnknown):
        egress.resolve("slow-4", 80)

    # All hosts of a URI have one deadline.
    assert time.monotonic() - began < 3 * 0.8
    assert caught.value.for_now
    # So a job whose host it is waits for its next try, and does not fail.
    assert is_passing(caught.value)


def test_names_are_asked_for_at_once_and_each_once(hanging: Hanging) -> None:
    egress = Egress(look_up=hanging)
    found: list[str] = []
    asking = threading.Thread(
        target=lambda: found.append(egress.pin_connection("postgresql://u:p@slow-1,slow-2,db,slow-1/x", NO_SECRETS))
    )
    asking.start()
    hanging.wait_for(2)
    hanging.go.set()
    asking.join(20)

    assert sorted(hanging.asked) == ["db", "slow-1", "slow-2"]
    assert parsed(found[0])["host"] == "slow-1,slow-2,db,slow-1"
    assert parsed(found[0])["hostaddr"] == ",".join(["10.0.0.5"] * 4)


def test_hosts_of_a_uri_are_few() -> None:
    def never(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    PUBLIC.check_connection("postgresql://u:p@db,db,db,two/x", NO_SECRETS)
    with pytest.raises(UriForbidden, match=r"^the URI names 5 hosts; name at most 4$"):
        Egress(look_up=never).check_connection("postgresql://u:p@db,db,db,db,two/x", NO_SECRETS)
    with pytest.raises(UriForbidden, match=r"^the URI names 340 hosts; name at most 4$"):
        Egress(look_up=never).check_connection(
            f"postgresql://u:p@h/x?hostaddr={','.join(['1.1.1.1'] * 340)}&host={','.join(['db'] * 340)}", NO_SECRETS
        )


def test_lookups_that_hang_do_not_pile_up_and_leave_some_for_other_tenants(hanging: Hanging) -> None:
    egress = Egress(look_up=hanging, patience_s=0.05, lookups=Lookups(most=5, most_of_one=3))
    for n in range(10):
        with pytest.raises(HostUnknown):
            egress.resolve(f"slow-{n}", 80, whose="mallory")

    hanging.wait_for(3)
    assert egress.resolve("db", 80, whose="acme") == ["10.0.0.5"]
    for n in range(10):
        with pytest.raises(HostUnknown) as caught:
            egress.resolve(f"slow-{n}", 80, whose="acme")
        assert caught.value.for_now
    hanging.wait_for(5)
    # Once the resolver answers, there is room again.
    hanging.go.set()
    assert replace(egress, patience_s=20).resolve("db", 80, whose="mallory") == ["10.0.0.5"]


def test_what_a_resolver_breaks_over_is_told_as_it_is() -> None:
    def broken(host: str, port: int) -> list[str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Egress(look_up=broken).resolve("db", 80)
