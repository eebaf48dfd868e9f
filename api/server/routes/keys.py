"""Keys of the caller's project; with the scope `operate` of any."""

from __future__ import annotations

from fastapi import APIRouter
from sqlalchemy.orm import Session

from api.server import schemas
from api.server.dependencies import (
    After,
    ByAge,
    Caller,
    KeyId,
    Limit,
    NoteMade,
    OfProject,
    Transaction,
)
from jobs.ledger import keys as ledger
from jobs.ledger.keys import Made
from jobs.queries import keys
from jobs.queries.paging import Order
from jobs.rights import Rights
from jobs.tenancy import KeyRequest, KeyRotation

router = APIRouter(prefix="/v1/keys", tags=["keys"])


@router.post("", status_code=201)
def create_key(
    body: KeyRequest, session: Transaction, caller: Caller, note_made: NoteMade
) -> schemas.NewKey:
    """Make a key; its text is in this answer, and nowhere else.

    A key gives no scope that it does not have itself.
    """
    made = ledger.create(session, body, by=caller)
    note_made(made.key_id)
    return _made(session, made, caller)


@router.get("")
def list_keys(
    *,
    session: Transaction,
    caller: Caller,
    project: OfProject = None,
    limit: Limit = 20,
    after: After = None,
    order: ByAge = Order.DESC,
) -> schemas.KeyPage:
    """Keys of the project, newest first, those that have ended too."""
    found, more = keys.page(
        session, project_id=caller.project(project), limit=limit, after=after, order=order
    )
    return schemas.KeyPage.of(found, has_more=more)


@router.get("/current")
def get_current_key(caller: Caller) -> schemas.CurrentKey:
    """What the key of this request may do, and for which project."""
    return schemas.CurrentKey.of(caller)


@router.get("/{key_id}")
def get_key(key_id: KeyId, session: Transaction, caller: Caller) -> schemas.Key:
    """One key."""
    return _shown(session, key_id, caller)


@router.post("/{key_id}/rotate", status_code=201)
def rotate_key(
    key_id: KeyId, session: Transaction, caller: Caller, body: KeyRotation | None = None
) -> schemas.NewKey:
    """Make a key that replaces this one, which stays valid for a while."""
    return _made(session, ledger.rotate(session, key_id, body or KeyRotation(), by=caller), caller)


@router.post("/{key_id}/revoke")
def revoke_key(key_id: KeyId, session: Transaction, caller: Caller) -> schemas.Key:
    """End a key for good; every process refuses it within a second."""
    ledger.revoke(session, key_id, by=caller)
    return _shown(session, key_id, caller)


def _shown(session: Session, key_id: str, caller: Rights) -> schemas.Key:
    return schemas.Key.of(keys.get(session, key_id, by=caller))


def _made(session: Session, made: Made, caller: Rights) -> schemas.NewKey:
    return schemas.NewKey.made(keys.get(session, made.key_id, by=caller), text=made.text)
