"""Who asks: a token becomes a caller, or a refusal that does not say what was wrong with it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from launcher.admission import Caller
from launcher.api.bodies import refuse_unknown
from launcher.api.middleware import FACTS
from launcher.api.threads import quickly
from launcher.errors import RoleLacking, Unauthorized
from launcher.keyring import Keyring
from launcher.state.job import DEFAULT_TENANT
from launcher.state.keys import ROLES, Role

# Whoever reaches a service without keys started it.
KEYLESS = Caller(DEFAULT_TENANT, "admin")
_REFUSAL = "there is no API key in the request that opens anything; send Authorization: Bearer psk_…"


async def caller_of(request: Request) -> Caller:
    """Who sent a request.

    Raises:
        Unauthorized: nobody that is known.
    """
    ring: Keyring = request.app.state.service.ring
    caller = await _caller(request, ring)
    request.scope.get(FACTS, {})["tenant"] = caller.tenant
    return caller


async def _caller(request: Request, ring: Keyring) -> Caller:
    # The event loop asks no store; what is remembered needs no thread.
    keyless = ring.remembers_keyless()
    if keyless is None:
        keyless = await quickly(request.scope, ring.is_keyless)
    if keyless:
        return KEYLESS
    token = token_of(request)
    if not token:
        raise Unauthorized(_REFUSAL)
    key = ring.remembers(token) or await quickly(request.scope, ring.check, token)
    if key is None:
        raise Unauthorized(_REFUSAL)
    return Caller(key.tenant, key.role)


def token_of(request: Request) -> str:
    """The token that came with a request, whatever it opens; empty where there is none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def check_role(caller: Caller, needed: Role, what: str) -> None:
    """See that a caller's key may do something.

    Raises:
        RoleLacking: it may not.
    """
    if ROLES.index(caller.role) < ROLES.index(needed):
        raise RoleLacking(f"a {caller.role} key cannot {what}; use one with role {needed}")


def _may(needed: Role, what: str) -> Callable[[Request], Awaitable[Caller]]:
    async def check(request: Request) -> Caller:
        caller = await caller_of(request)
        check_role(caller, needed, what)
        # Not before it is known who asks.
        refuse_unknown(request)
        return caller

    return check


Viewer = Annotated[Caller, Depends(_may("viewer", "look at this"))]
Submitter = Annotated[Caller, Depends(_may("submitter", "change anything"))]
