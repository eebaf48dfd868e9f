"""One mail to a person, by the server of ``NIGHTSHIFT_SMTP_URL``."""

from __future__ import annotations

import json
import smtplib
import ssl
from email.message import EmailMessage
from typing import Any
from urllib.parse import unquote, urlsplit

from jobs.settings import Settings
from jobs.webhooks.answers import Failure

SECONDS = 30.0
"""How long the server may take for each step."""

_PORTS = {"smtp": 25, "smtps": 465}


def send(to: str, *, event: dict[str, Any], settings: Settings) -> Failure | None:
    """Send an event as it is sent to receivers; why that failed, if it did."""
    if not settings.smtp_url:
        return Failure("NIGHTSHIFT_SMTP_URL is not set: this installation sends no mails")
    try:
        with _connect(settings) as server:
            server.send_message(_message(to, event, sender=settings.smtp_from))
    except (OSError, smtplib.SMTPException, ValueError) as error:
        return Failure(f"the mail was not sent: {' '.join(str(error).split())[:200]}")
    return None


def _connect(settings: Settings) -> smtplib.SMTP:
    url = urlsplit(settings.smtp_url)
    if url.scheme not in _PORTS or not url.hostname:
        raise ValueError("NIGHTSHIFT_SMTP_URL must begin with smtp:// or smtps://, and have a host")
    host, port = url.hostname, url.port or _PORTS[url.scheme]
    context = ssl.create_default_context()
    if url.scheme == "smtps":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, port, timeout=SECONDS)
    try:
        server.ehlo_or_helo_if_needed()
        if url.scheme == "smtp" and server.has_extn("starttls"):
            server.starttls(context=context)
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
    except BaseException:
        server.close()
        raise
    return server


def _message(to: str, event: dict[str, Any], *, sender: str) -> EmailMessage:
    data = event["data"]
    message = EmailMessage()
    message["From"], message["To"] = sender, to
    message["Subject"] = f"Nightshift: {event['type']} {data['id']}"
    message["Message-ID"] = f"<{event['id']}@nightshift>"
    message["Auto-Submitted"] = "auto-generated"
    facts = [f"{name}: {_shown(value)}" for name, value in data.items() if name != "links"]
    links = list(data.get("links", {}).values())
    message.set_content("\n".join([event["type"], event["timestamp"], "", *facts, "", *links]))
    return message


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
