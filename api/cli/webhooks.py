"""``nightshift webhooks``: who is told what happens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli import arguments, connection, console, tables
from api.cli.arguments import Json, Limit
from api.cli.connection import Api
from api.cli.failures import FAILED, Failure
from api.cli.tables import WHOLE, Column, Listing
from jobs.webhooks.events import EventType
from jobs.webhooks.states import DeliveryState

app = typer.Typer(help="Who is told what happens.")

Answer = dict[str, Any]

Endpoint = Annotated[
    str,
    typer.Argument(
        metavar="ENDPOINT", help="The id of a webhook endpoint.", parser=arguments.endpoint
    ),
]
Delivery = Annotated[
    int,
    typer.Argument(
        metavar="DELIVERY",
        help="The number of a delivery, as `deliveries` shows it.",
        min=0,
        max=2**62 - 1,
    ),
]
Events = Annotated[
    list[EventType] | None,
    typer.Option("--event", help="What is sent. May be given several times; default: everything."),
]
Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="For people.")]

COLUMNS = (
    Column("ID"),
    Column("NAME", cut=4),
    Column("SENDS TO", cut=2),
    Column("STATE"),
    Column("WAITING"),
    Column("EVENTS", cut=5),
    Column("REASON", cut=3),
)
DELIVERY_COLUMNS = (
    Column("NUMBER"),
    Column("HAPPENED", cut=3, least=WHOLE),
    Column("EVENT"),
    Column("ABOUT", cut=1, least=WHOLE),
    Column("STATE"),
    Column("TRIES"),
    Column("STATUS", cut=4),
    Column("NEXT TRY", cut=5, least=WHOLE),
    Column("ERROR", cut=2),
)


@app.command("create")
def create(
    url: Annotated[
        str | None, typer.Argument(metavar="[URL]", help="Where events go: http or https.")
    ] = None,
    *,
    email: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Send mails instead, to this address.")
    ] = None,
    event: Events = None,
    name: Name = None,
    json: Json = False,
    idempotency_key: arguments.IdempotencyKey = None,
    api: Api = None,
) -> None:
    """Make an endpoint; its secret is printed now, and never again."""
    if (url is None) == (email is None):
        raise Failure("give either a URL or --email ADDRESS")
    with connection.connect(api) as client:
        made = client.webhooks.create(
            url,
            email=email,
            name=name or "",
            event_types=event or (),
            idempotency_key=idempotency_key,
        )
    _answer(made, f"{made['id']} receives {_events(made)}", json=json)


@app.command("list")
def list_endpoints(*, limit: Limit = 50, json: Json = False, api: Api = None) -> None:
    """Endpoints, newest first."""
    with connection.connect(api) as client:
        found = Listing.first(client.webhooks.list(), limit)
    tables.listing(found, COLUMNS, _row, json=json)


@app.command("show")
def show(endpoint: Endpoint, *, json: Json = False, api: Api = None) -> None:
    """One endpoint, in full."""
    with connection.connect(api) as client:
        found = client.webhooks.get(endpoint)
    if json:
        console.as_json(found)
        return
    tables.facts(_facts(found))


@app.command("edit")
def edit(
    endpoint: Endpoint,
    *,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where events go now.")] = None,
    event: Events = None,
    every_event: Annotated[bool, typer.Option("--every-event", help="Send everything.")] = False,
    name: Name = None,
    json: Json = False,
    api: Api = None,
) -> None:
    """Change what is given; what waits goes to a new URL as well."""
    if event and every_event:
        raise Failure("--event and --every-event both say what is sent: give one of them")
    types = [] if every_event else event
    if url is None and types is None and name is None:
        raise Failure("nothing is changed: give --url, --event, --every-event or --name")
    with connection.connect(api) as client:
        found = client.webhooks.edit(endpoint, url=url, name=name, event_types=types)
    console.answer(found, f"{endpoint} receives {_events(found)}", json=json)


@app.command("rotate")
def rotate(
    endpoint: Endpoint,
    *,
    overlap: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="How long the secrets before stay valid; 0 ends them now."
        ),
    ] = "1d",
    json: Json = False,
    api: Api = None,
) -> None:
    """Make a new secret, which is printed now, and never again."""
    with connection.connect(api) as client:
        made = client.webhooks.rotate(endpoint, overlap=overlap)
    until = max(made["nightshift"]["old_secrets_until"], default=None)
    old = f"those before it are valid until {console.moment(until)} UTC" if until else "alone"
    _answer(made, f"{endpoint} signs with a new secret, {old}", json=json)


@app.command("test")
def send_test(
    endpoint: Endpoint,
    *,
    event: Annotated[
        EventType, typer.Option("--event", help="The type of the sample.")
    ] = EventType.ENDPOINT_TEST,
    wait: Annotated[
        int, typer.Option(metavar="SECONDS", min=0, max=600, help="How long to wait for an answer.")
    ] = 30,
    json: Json = False,
    api: Api = None,
) -> int:
    """Send a sample event; exit code 1 if it was not taken."""
    with connection.connect(api) as client:
        made = client.webhooks.test(endpoint, event_type=event)["delivery"]
        found = client.webhooks.wait(endpoint, made["id"], seconds=wait)
    taken = found["state"] == DeliveryState.DELIVERED
    status = found["status_code"]
    sentence = f"{endpoint} took it" + (f", {status}" if status else "")
    if not taken:
        sentence = f"{endpoint} did not take it: {found['error'] or 'it was not tried yet'}"
    console.answer(found, sentence, json=json)
    return 0 if taken else FAILED


@app.command("deliveries")
def deliveries(
    endpoint: Endpoint,
    *,
    state: Annotated[
        DeliveryState | None, typer.Option(help="Only deliveries in this state.")
    ] = None,
    limit: Limit = 20,
    json: Json = False,
    api: Api = None,
) -> None:
    """Its deliveries of the last 30 days, newest first."""
    with connection.connect(api) as client:
        found = Listing.first(client.webhooks.deliveries(endpoint, state=state), limit)
    tables.listing(found, DELIVERY_COLUMNS, _delivery_row, json=json)


@app.command("resend")
def resend(endpoint: Endpoint, delivery: Delivery, *, json: Json = False, api: Api = None) -> None:
    """Send an event again; one that waits is tried at once."""
    with connection.connect(api) as client:
        made = client.webhooks.resend(endpoint, delivery)
    console.answer(made, f"{made['event']} is sent again, delivery {made['id']}", json=json)


@app.command("enable")
def enable(
    endpoint: Endpoint,
    *,
    skip_waiting: Annotated[
        bool, typer.Option("--skip-waiting", help="Leave out what has waited.")
    ] = False,
    json: Json = False,
    api: Api = None,
) -> None:
    """Send what waits at once, also to an endpoint that was disabled."""
    with connection.connect(api) as client:
        found = client.webhooks.enable(endpoint, skip_waiting=skip_waiting)
    waiting = console.number(found["nightshift"]["waiting"])
    console.answer(found, f"{endpoint} is enabled; {waiting} deliveries wait for it", json=json)


@app.command("delete")
def delete(endpoint: Endpoint, *, json: Json = False, api: Api = None) -> None:
    """Delete an endpoint; what waits for it is not sent."""
    with connection.connect(api) as client:
        done = client.webhooks.delete(endpoint)
    console.answer(done, f"{endpoint} is deleted", json=json)


def _answer(made: Answer, sentence: str, *, json: bool) -> None:
    """An answer with a secret: for people on a line of its own."""
    console.answer(made, sentence, json=json)
    if not json and made["signing_secret"]:
        console.line(f"secret {made['signing_secret']}")


def _events(endpoint: Answer) -> str:
    return ", ".join(endpoint["event_types"]) or "every event"


def _row(endpoint: Answer) -> tuple[Any, ...]:
    details = endpoint["nightshift"]
    return (
        endpoint["id"],
        endpoint["name"] or None,
        endpoint["url"] or details["email"],
        details["state"],
        console.number(details["waiting"]),
        _events(endpoint),
        details["reason"],
    )


def _delivery_row(delivery: Answer) -> tuple[Any, ...]:
    return (
        delivery["id"],
        console.moment(delivery["happened_at"]),
        delivery["event_type"],
        delivery["about"],
        delivery["state"],
        delivery["tries"],
        delivery["status_code"],
        console.moment(delivery["next_try_at"]),
        delivery["error"],
    )


def _facts(endpoint: Answer) -> list[tuple[str, Any]]:
    details = endpoint["nightshift"]
    old = max(details["old_secrets_until"], default=None)
    failing, waiting = details["failing_since"], details["waiting_since"]
    return [
        ("endpoint", endpoint["id"]),
        ("name", endpoint["name"] or None),
        ("sends to", endpoint["url"] or details["email"]),
        ("events", _events(endpoint)),
        ("state", details["state"]),
        ("because", details["reason"]),
        (
            "failing",
            failing and f"since {console.moment(failing)} UTC, {details['failures']} tries",
        ),
        ("waiting", console.number(details["waiting"])),
        ("waits since", waiting and f"{console.moment(waiting)} UTC"),
        ("secret", endpoint["signing_secret_hint"]),
        ("old secrets", old and f"valid until {console.moment(old)} UTC"),
    ]
