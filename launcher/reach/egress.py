"""Which hosts the service reaches on a tenant's behalf, be it a database or the receiver of a webhook.

A host is judged by the addresses that its name leads to, never by how it is written. Private networks (10.0.0.0/8 and
the like) are allowed, as databases live there; the machine itself, its neighbours on the wire and the metadata
services of clouds are not, unless PENSTOCK_ALLOWED_HOSTS names them. A name may lead elsewhere a second later: connect
to the addresses that `Egress.resolve` gave, or with the URI that `Egress.pin_connection` gave.

Not promised: a service of this machine that listens on one of its private addresses is reached by that address.
"""

import ipaddress
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from launcher.errors import AddressForbidden, HostUnknown, SettingWrong, UriForbidden

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

VARIABLE = "PENSTOCK_ALLOWED_HOSTS"
_REMEDY = f"; name another host, or have it allowed by {VARIABLE}"

# From the IANA's registries of special addresses (IPv4 and IPv6): what is not another machine of a network, be it the
# net or a private one.
_FORBIDDEN: tuple[tuple[_Network, str], ...] = tuple(
    (ipaddress.ip_network(network), kind)
    for network, kind in (
        # Metadata services and the like that are not link-local: Azure, Alibaba, Oracle; AWS and Google by IPv6.
        ("168.63.129.16/32", "a service of the cloud itself"),
        ("100.100.100.200/32", "a service of the cloud itself"),
        ("192.0.0.192/32", "a service of the cloud itself"),
        ("169.254.169.254/32", "a service of the cloud itself"),
        ("fd00:ec2::/32", "a service of the cloud itself"),
        ("fd20:ce::/32", "a service of the cloud itself"),
        ("0.0.0.0/8", "this machine"),
        ("127.0.0.0/8", "this machine"),
        ("169.254.0.0/16", "a link-local address"),
        ("192.0.0.0/24", "a reserved address"),
        ("224.0.0.0/4", "a multicast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::/128", "this machine"),
        ("::1/128", "this machine"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a reserved address"),
        ("ff00::/8", "a multicast address"),
        ("100::/8", "a reserved address"),
        # Where an IPv4 address is hidden in it differs from network to network (RFC 8215).
        ("64:ff9b:1::/48", "a reserved address"),
        # IPv4-compatible addresses among them.
        ("::/8", "a reserved address"),
    )
)
# IPv6 networks whose addresses lead to the IPv4 address that is so many bits from the right.
_IPV4_WITHIN = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped, RFC 4291
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_TEREDO = ipaddress.IPv6Network("2001::/32")
_HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_MAX_HOST_CHARS = 253
# A primary and its standbys; each is looked up, and tried in turn.
_MOST_HOSTS = 4
# For the hosts of a URI together, as the caller waits meanwhile. A resolver that is well takes milliseconds, and asks
# another server after five seconds.
PATIENCE_S = 5.0
# By its defaults a resolver that hangs gives up after half a minute, and cannot be told to sooner: so many threads may
# hang, each with some 100 KB, and of one tenant only so many that others get theirs.
_MOST_LOOKUPS = 32
_MOST_LOOKUPS_OF_ONE = 8

# What a tenant may say to libpq. Not there: what names a file (passfile, sslcert, sslkey, sslrootcert, sslcrl, service,
# servicefile, sslkeylogfile, …), and what hands on the service's own identity (gssdelegation, krbsrvname, oauth_…).
_PARAMETERS = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "fallback_application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "options",
        "require_auth",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcompression",
        "sslmode",
        "sslnegotiation",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
    }
)
_SCHEMES = ("postgresql://", "postgres://")
_POSTGRES_PORT = 5432
# Whoever connects without a password would send these.
_OWN_SECRETS = ("PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE")
# In this order they stand elsewhere in the URI.
_PLACE = ("user", "password", "host", "port", "dbname", "hostaddr")


class _Server(NamedTuple):
    """One of the servers that a URI names, in libpq's way; text as it is written, empty for what is not."""

    host: str
    address: str
    port: str

    @property
    def is_local(self) -> bool:
        """Whether it is a socket of this machine, named or not."""
        return not self.address and (not self.host or self.host.startswith(("/", "@")))


def look_up(host: str, port: int) -> list[str]:
    """The addresses of a host in the order of the system's resolver; it takes as long as that takes.

    Raises:
        HostUnknown: it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HostUnknown(host, for_now=getattr(error, "errno", None) == socket.EAI_AGAIN) from error
    return [str(answer[4][0]) for answer in found]


class Lookups:
    """Looks up hosts in threads of their own, so that a resolver that hangs holds up nobody else. Any thread may ask.

    Args:
        most: that go on at once, also those that nobody waits for any more.
        most_of_one: of these, for one tenant.
    """

    def __init__(self, most: int = _MOST_LOOKUPS, most_of_one: int = _MOST_LOOKUPS_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._going: Counter[str] = Counter()
        self._changed = threading.Condition()

    def __call__(
        self,
        look_up: Callable[[str, int], Sequence[str]],
        hosts: Sequence[tuple[str, int]],
        patience_s: float,
        whose: str,
    ) -> dict[tuple[str, int], Sequence[str]]:
        """The addresses of hosts, all of which are looked up at once.

        Raises:
            HostUnknown: one has none, or it is not known in time.
        """
        until = time.monotonic() + patience_s
        found: dict[tuple[str, int], Sequence[str] | Exception] = {}

        def ask(host: str, port: int) -> None:
            answer: Sequence[str] | Exception
            try:
                answer = look_up(host, port)
            except Exception as error:
                # Raised where somebody waits for it.
                answer = error
            with self._changed:
                found[host, port] = answer
                self._going[whose] -= 1
                if not self._going[whose]:
                    del self._going[whose]
                self._changed.notify_all()

        with self._changed:
            for host, port in hosts:
                if not self._changed.wait_for(lambda: self._has_room(whose), until - time.monotonic()):
                    raise HostUnknown(host, for_now=True) from TimeoutError("too many hosts are looked up")
                threading.Thread(target=ask, args=(host, port), name="look up a host", daemon=True).start()
                self._going[whose] += 1
            self._changed.wait_for(lambda: len(found) == len(hosts), until - time.monotonic())
            answers: dict[tuple[str, int], Sequence[str]] = {}
            for host, port in hosts:
                # Whatever comes from now on, nobody waits for.
                answer = found.get((host, port))
                if answer is None:
                    raise HostUnknown(host, for_now=True) from TimeoutError("the resolver does not answer")
                if isinstance(answer, Exception):
                    raise answer
                answers[host, port] = answer
        return answers

    def _has_room(self, whose: str) -> bool:
        return self._going.total() < self._most and self._going[whose] < self._most_of_one


@dataclass(frozen=True)
class Egress:
    """The hosts that may be reached.

    Args:
        allowed: what may be reached though it is forbidden: `localhost`, other host names, `*.suffix` for all names
            below a suffix, addresses, and networks such as `127.0.0.0/8`. A name is allowed with all its addresses.
        blanket: everything may be reached.
        look_up: finds the addresses of a host; called in threads of `lookups`.
        patience_s: for all hosts of a question together.

    Raises:
        SettingWrong: an entry of `allowed` is none of these.
    """

    allowed: tuple[str, ...] = ()
    blanket: bool = False
    look_up: Callable[[str, int], Sequence[str]] = look_up
    patience_s: float = PATIENCE_S
    lookups: Lookups = field(default_factory=Lookups, compare=False, repr=False)

    def __post_init__(self) -> None:
        for entry in self.allowed:
            if _network(entry) is None and not _HOST_NAME.fullmatch(_plain(entry)):
                raise SettingWrong(
                    VARIABLE,
                    f"holds {entry[:60]!r}; use host names, *.suffix, addresses or networks such as 10.0.0.0/8, "
                    "parted by commas",
                )

    @classmethod
    def read(cls, text: str) -> "Egress":
        """What PENSTOCK_ALLOWED_HOSTS says: entries parted by commas; a lone `*` allows everything.

        Raises:
            SettingWrong: an entry cannot be read.
        """
        entries = tuple(entry.strip() for entry in text.split(",") if entry.strip())
        return cls(tuple(entry for entry in entries if entry != "*"), blanket="*" in entries)

    def resolve(self, host: str, port: int, whose: str = "") -> list[str]:
        """The addresses of a host, all of which may be reached, in the resolver's order and each once.

        Args:
            host: a name or an address, an IPv6 address in brackets or not.
            whose: the tenant that it is asked for; none may take all lookups there are.

        Raises:
            AddressForbidden: one of them may not be reached, or this can be no host.
            HostUnknown: it has none; or, `for_now`, it is not known within `patience_s`.
        """
        [addresses] = self._resolve([(host, port)], whose)
        return addresses

    def _resolve(self, hosts: Sequence[tuple[str, int]], whose: str) -> list[list[str]]:
        """`resolve` for several hosts, within the time of one."""
        named = [(_name(host), port) for host, port in hosts]
        found = self.lookups(self.look_up, list(dict.fromkeys(named)), self.patience_s, whose)
        return [
            self._judged(host, name, found[name, port]) for (host, _), (name, port) in zip(hosts, named, strict=True)
        ]

    def _judged(self, host: str, name: str, found: Sequence[str]) -> list[str]:
        """The addresses of a host, if all of them may be reached."""
        addresses = [_address(each) for each in found]
        if not addresses:
            raise HostUnknown(host)
        if not (self.blanket or self._allows_name(name)):
            for address in addresses:
                kind = self._forbidden(address)
                if kind is not None:
                    raise AddressForbidden(host, f"leads to {kind}{_REMEDY}")
        return list(dict.fromkeys(map(str, addresses)))

    def check_connection(self, uri: str, environment: Mapping[str, str] | None = None, whose: str = "") -> None:
        """Look whether a tenant may connect to the database of `uri`, which may be a secret and is never repeated.

        The URI is read by libpq itself, so that what is judged is what will be done.

        Args:
            uri: `postgresql://…` or `postgres://…`.
            environment: of the service that will connect; its own when None.
            whose: see `resolve`.

        Raises:
            UriForbidden: another scheme, `${…}`, a parameter that names a file or is not known, a socket, too many
                hosts, or no password where the service would send one of its own.
            AddressForbidden, HostUnknown: see `resolve`.
        """
        self.pin_connection(uri, environment, whose)

    def pin_connection(self, uri: str, environment: Mapping[str, str] | None = None, whose: str = "") -> str:
        """`check_connection`, and the same connection with the addresses that were judged (`hostaddr`).

        Host names stay, for the certificates of servers are held against them.

        Raises:
            UriForbidden, AddressForbidden, HostUnknown: see `check_connection`.
        """
        values = _read(uri)
        _refuse_own_secrets(values, os.environ if environment is None else environment)
        servers = _servers(values)
        if len(servers) > _MOST_HOSTS:
            raise UriForbidden(f"the URI names {len(servers)} hosts; name at most {_MOST_HOSTS}")
        places = [(server.address or server.host, _port(server.port)) for server in servers]
        if any(server.is_local for server in servers) and not (self.blanket or self._allows_name("localhost")):
            raise UriForbidden(
                f"the URI leads to a socket of this machine; name a host, or have localhost allowed by {VARIABLE}"
            )
        away = [place for server, place in zip(servers, places, strict=True) if not server.is_local]
        addresses = dict(zip(away, self._resolve(away, whose), strict=True))
        pinned: list[_Server] = []
        for server, place in zip(servers, places, strict=True):
            if server.is_local:
                pinned.append(server)
            else:
                pinned += [server._replace(address=address) for address in addresses[place]]
        return _uri(values, pinned)

    def _allows_name(self, host: str) -> bool:
        name = _plain(host)
        return any(
            name == _plain(entry) or (entry.startswith("*.") and name.endswith(_plain(entry)[1:]))
            for entry in self.allowed
        )

    def _forbidden(self, address: _Address) -> str | None:
        """What kind of address it is that may not be reached; None if it may."""
        allowed = [network for network in map(_network, self.allowed) if network is not None]
        for each in (address, *_within(address)):
            if any(each.version == network.version and each in network for network in allowed):
                return None
        # An address that is but another way to write an IPv4 address is judged as that.
        for each in list(_within(address)) or [address]:
            for network, kind in _FORBIDDEN:
                if each.version == network.version and each in network:
                    return kind
        return None


def _name(host: str) -> str:
    """A host as it is looked up."""
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not name or len(name) > _MAX_HOST_CHARS or re.search(r"[\x00-\x20\x7f/@\\?#\ud800-\udfff]", name):
        raise AddressForbidden(host[:_MAX_HOST_CHARS], "is no host; name one such as db.example.com")
    return name


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


def _network(entry: str) -> _Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _address(text: str) -> _Address:
    # A zone (fe80::1%eth0) says by which card, which is nobody's business here.
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _within(address: _Address) -> Iterator[_Address]:
    """The IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    for network, shift in _IPV4_WITHIN:
        if address in network:
            yield ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    if address in _TEREDO:
        # The server, and the client with its bits turned over (RFC 4380).
        yield ipaddress.IPv4Address(int(address) >> 64 & 0xFFFFFFFF)
        yield ipaddress.IPv4Address(~int(address) & 0xFFFFFFFF)


def _read(uri: str) -> dict[str, str]:
    """What libpq makes of a URI, by parameter."""
    if "${" in uri:
        raise UriForbidden("the URI holds ${…}, and the service's environment is not for jobs; write the value itself")
    if not uri.startswith(_SCHEMES):
        scheme, found, _ = uri.partition("://")
        known = (
            f"scheme {scheme!r} is not known" if found and re.fullmatch(r"[\w+.-]{1,30}", scheme) else "it is no URI"
        )
        raise UriForbidden(f"{known}; write postgresql://user:password@host/database")
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", uri):
        raise UriForbidden("the URI holds a control character; write it percent-encoded")
    # Only here, for it takes a while: libpq's own reader.
    from psycopg import Error, pq

    try:
        options = pq.Conninfo.parse(uri.encode())
    except Error as error:
        unknown = re.search(r'invalid URI query parameter: "(\w{1,40})"', str(error))
        if unknown is not None:
            raise UriForbidden(f"the URI has a parameter {unknown[1]}, which is not known; leave it out") from error
        raise UriForbidden(
            "the URI cannot be read; write postgresql://user:password@host:5432/database, "
            "and characters such as @ / : % in a password percent-encoded"
        ) from error
    try:
        values = {each.keyword.decode(): each.val.decode() for each in options if each.val is not None}
    except UnicodeDecodeError as error:
        raise UriForbidden("the URI is not UTF-8 once its percent-encoding is undone; write it so") from error
    for name, value in values.items():
        # The one value that is no file: the certificates that the system trusts.
        if name not in _PARAMETERS and (name, value) != ("sslrootcert", "system"):
            raise UriForbidden(f"the URI has the parameter {name}, which is not for jobs; leave it out")
        if re.search(r"[\x00-\x1f\x7f]", value):
            raise UriForbidden(f"the URI has a control character in its {name}; leave it out")
    if "=" in values.get("dbname", "") or values.get("dbname", "").startswith(_SCHEMES):
        # Some of libpq's functions would read it as a connection of its own.
        raise UriForbidden("the URI's database cannot have such a name; name another")
    return values


def _servers(values: Mapping[str, str]) -> list[_Server]:
    """The servers, as libpq pairs hosts, addresses and ports."""
    hosts, addresses, ports = (values.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    count = len(addresses) if values.get("hostaddr") else len(hosts)
    if len(ports) == 1:
        ports *= count
    if not values.get("hostaddr"):
        addresses = [""] * count
    if not values.get("host"):
        hosts = [""] * count
    if not len(hosts) == len(addresses) == len(ports):
        raise UriForbidden("the URI names hosts, addresses and ports that do not pair; write one of each for each host")
    return [_Server(*each) for each in zip(hosts, addresses, ports, strict=True)]


def _port(text: str) -> int:
    if not text:
        return _POSTGRES_PORT
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65_536:
        raise UriForbidden("the URI has a port that cannot be; use one from 1 to 65535")
    return int(text)


def _refuse_own_secrets(values: Mapping[str, str], environment: Mapping[str, str]) -> None:
    if values.get("password"):
        return
    own = [name for name in _OWN_SECRETS if environment.get(name)]
    home = environment.get("HOME")
    if own or (home and (Path(home) / ".pgpass").exists()):
        raise UriForbidden(
            "the URI has no password, and the service's own would be sent; write one, if only a made-up one"
        )


def _uri(values: Mapping[str, str], servers: Sequence[_Server]) -> str:
    """The URI of what `_read` and `_servers` gave."""

    def written(name: str) -> str:
        return quote(values.get(name, ""), safe="")

    def placed(server: _Server) -> str:
        host = f"[{server.host}]" if ":" in server.host else quote(server.host, safe="")
        return host + (f":{server.port}" if server.port else "")

    user = written("user") + (f":{written('password')}" if "password" in values else "")
    more = {name: value for name, value in values.items() if name not in _PLACE}
    if any(server.address for server in servers):
        more["hostaddr"] = ",".join(server.address for server in servers)
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in more.items())
    places = ",".join(map(placed, servers))
    return f"postgresql://{user}{'@' * bool(user)}{places}/{written('dbname')}{'?' * bool(query)}{query}"
