"""Who is told of alerts: the log always; a webhook, Slack and e-mail where the settings name them."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from rtml.errors import RtmlError
from rtml.settings import Settings
from rtml_assets.watch.message import Message, for_slack

TIMEOUT_SECONDS = 5.0


class DeliveryError(RtmlError):
    """A channel that did not take a message; never names its URL or password, which are secrets."""


class Channel(Protocol):
    """Somewhere that messages go."""

    @property
    def name(self) -> str:
        """What it is called in the ledger."""
        ...

    def send(self, said: Message) -> None:
        """Send a message.

        Raises:
            DeliveryError: it was not taken.
        """
        ...


class Log:
    """One line of JSON for each message."""

    name = "log"

    def __init__(self, write: Callable[[str], None]) -> None:
        """Take what writes a line."""
        self._write = write

    def send(self, said: Message) -> None:
        """Write it."""
        self._write(msgspec.json.encode({"title": said.title, **msgspec.structs.asdict(said)}).decode())


class Webhook:
    """A JSON POST for each message; any answer of 2xx takes it.

    Args:
        url: where to; it may carry a secret.
        name: what it is called.
        shape: what is posted of a message.
    """

    def __init__(self, url: str, name: str = "webhook", shape: Callable[[Message], Any] = msgspec.to_builtins) -> None:
        """Take the place."""
        self.name, self._shape = name, shape
        self._url = urlsplit(url)

    def send(self, said: Message) -> None:
        """Post it."""
        body = msgspec.json.encode(self._shape(said))
        url = self._url
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        try:
            connection = kind(url.hostname or "", url.port, timeout=TIMEOUT_SECONDS)
        except (ValueError, HTTPException) as error:
            raise DeliveryError(
                f"{self.name}: its URL has no host or port to connect to: {type(error).__name__}"
            ) from None
        try:
            path = f"{url.path or '/'}{f'?{url.query}' if url.query else ''}"
            connection.request("POST", path, body, {"content-type": "application/json"})
            status = connection.getresponse().status
        except (ValueError, HTTPException) as error:  # its words may quote the URL
            raise DeliveryError(f"{self.name}: {type(error).__name__}") from None
        except OSError as error:
            raise DeliveryError(f"{self.name}: {type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise DeliveryError(f"{self.name}: answered HTTP {status}")


class Email:
    """An e-mail for each message, by SMTP.

    Args:
        settings: the `alert_email` and `smtp_*` settings.
        post: what hands a finished mail over; by default `by_smtp`.
    """

    name = "email"

    def __init__(self, settings: Settings, post: Callable[[Settings, EmailMessage], None] | None = None) -> None:
        """Take the addresses."""
        self._settings, self._post = settings, post or by_smtp

    def send(self, said: Message) -> None:
        """Mail it."""
        mail = EmailMessage()
        mail["Subject"] = f"rtml: {said.title}"
        mail["From"] = sender(self._settings)
        mail["To"] = ", ".join(recipients(self._settings))
        mail.set_content("\n".join([said.title, "", said.summary, *said.lines]) + "\n")
        try:
            self._post(self._settings, mail)
        except (OSError, smtplib.SMTPException) as error:
            # What a server refuses with may quote what it was told; its code is enough.
            code = f" {error.smtp_code}" if isinstance(error, smtplib.SMTPResponseException) else ""
            raise DeliveryError(f"email: {type(error).__name__}{code}") from None


def by_smtp(settings: Settings, mail: EmailMessage) -> None:
    """Hand a mail to the SMTP server of the settings.

    Raises:
        OSError, smtplib.SMTPException: it was not taken.
    """
    host, port = settings.smtp_host, settings.smtp_port
    trusted = ssl.create_default_context()
    if settings.smtp_security == "ssl":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=trusted)
    else:
        server = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    with server:
        if settings.smtp_security == "starttls":
            server.starttls(context=trusted)
        if settings.smtp_user:
            server.login(settings.smtp_user, settings.smtp_password)
        server.send_message(mail)


def recipients(settings: Settings) -> list[str]:
    """Return who gets mail."""
    return [address.strip() for address in settings.alert_email.split(",") if address.strip()]


def sender(settings: Settings) -> str:
    """Return who mail is from: the user, where that is an address."""
    if settings.smtp_from:
        return settings.smtp_from
    return settings.smtp_user if "@" in settings.smtp_user else recipients(settings)[0]


def channels_of(settings: Settings, write: Callable[[str], None], email: Email | None = None) -> list[Channel]:
    """Return the channels that the settings name; `write` takes the log's lines."""
    found: list[Channel] = [Log(write)]
    if settings.alert_webhook:
        found.append(Webhook(settings.alert_webhook))
    if settings.alert_slack_webhook:
        found.append(Webhook(settings.alert_slack_webhook, "slack", for_slack))
    if recipients(settings):
        found.append(email or Email(settings))
    return found
