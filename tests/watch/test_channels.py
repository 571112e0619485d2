"""Who is told: a real webhook, a real mail server, and what happens when they fail."""

import base64
import json
import ssl
import threading
import time
from typing import Any

import msgspec
import pytest
import trustme

from rtml.errors import SettingsError
from rtml.instants import DAY, SECOND
from rtml.settings import Settings
from rtml_assets.runtime.ports import free_port
from rtml_assets.watch.channels import DeliveryError, Email, Log, Webhook, channels_of
from rtml_assets.watch.ledger import Alert, Ledger, Notice
from rtml_assets.watch.message import Links, for_slack, message
from rtml_assets.watch.outbox import LEASE, Outbox
from tests.runtime.processes import until
from tests.watch.receivers import Hook, Mailbox

LINKS = Links.of(Settings(host="10.0.0.5", dagster_port=3001))
START = 1_700_000_000 * SECOND
ALERT = Alert("stream_lag", "source:a", "critical", "source 'a': lag <12.4 s>", 12_400.0, 5_000.0, START, START)


def notice(kind="fired", later=0, **others):
    return Notice(kind, msgspec.structs.replace(ALERT, **others), START + later * SECOND)


SAID = message(notice(later=4), LINKS)


@pytest.fixture(scope="module")
def hook():
    with Hook().running() as running:
        yield running


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    """What this machine trusts, and a server's certificate."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "x.sqlite", ["webhook"]) as ledger:
        yield ledger


def test_a_message_says_all_that_one_needs():
    assert msgspec.to_builtins(SAID) == {
        "id": f"stream_lag/source:a/{START}/fired/{START + 4 * SECOND}",
        "kind": "fired",
        "alert": "stream_lag",
        "target": "source:a",
        "severity": "critical",
        "summary": "A flow is further behind its stream than was promised.",
        "words": "source 'a': lag <12.4 s>",
        "value": 12_400.0,
        "bound": 5_000.0,
        "since": "2023-11-14T22:13:20Z",
        "at": "2023-11-14T22:13:24Z",
        "lasted_s": 4.0,
        "runbook": "docs/runbooks/stream-lag.md",
        "dagster": "http://10.0.0.5:3001/assets/stream/a",
    }
    assert SAID.title == "CRITICAL stream_lag source:a"
    assert "lasted 4 s, since 2023-11-14T22:13:20Z" in message(notice("resolved", later=4), LINKS).lines
    assert "still so" in message(notice("reminded"), LINKS).lines


@pytest.mark.parametrize(
    ("target", "page"),
    [
        ("platform", ""),
        ("view:v", "/assets/published/v"),
        ("service:s", "/assets/serving/s"),
        ("check:tiles/v:canary", "/assets/tiles/v?view=checks&checkDetail=canary"),
        ("job:compact_a", "/locations/__repository__@rtml/jobs/compact_a"),
        ("assets:events/a", "/runs"),
    ],
)
def test_each_target_has_its_page(target, page):
    assert Links.of(Settings(dagster_url="https://dagster.example/")).to(target) == f"https://dagster.example{page}"


def test_the_log_has_one_line_of_json():
    lines: list[str] = []
    Log(lines.append).send(SAID)
    assert json.loads(lines[0])["title"] == SAID.title
    assert "\n" not in lines[0]


def test_a_webhook_gets_the_message_and_slack_its_own_shape(hook):
    hook.got.clear()
    log, webhook, slack = channels_of(
        Settings(alert_webhook=hook.url("/a?b=c"), alert_slack_webhook=hook.url("/services/T/B/x")), print
    )
    webhook.send(SAID)
    slack.send(SAID)
    assert [log.name, webhook.name, slack.name] == ["log", "webhook", "slack"]
    assert hook.got == [msgspec.to_builtins(SAID), for_slack(SAID)]
    assert hook.paths[-2:] == ["/a?b=c", "/services/T/B/x"]
    first, more = hook.got[1]["blocks"]
    assert first["text"] == {
        "type": "mrkdwn",
        "text": ":rotating_light: *CRITICAL stream_lag source:a*\nsource 'a': lag &lt;12.4 s&gt;",
    }
    assert [element["text"] for element in more["elements"]] == SAID.lines[1:]


def test_a_refusal_never_tells_the_secret_url(hook):
    for url, words in [(hook.url("/s3cret"), "HTTP 500"), (f"http://127.0.0.1:{free_port()}/s3cret", "refused")]:
        hook.answers = [500]
        with pytest.raises(DeliveryError, match=words) as caught:
            Webhook(url).send(SAID)
        assert "s3cret" not in str(caught.value)
    hook.answers = []
    for url in ("http://127.0.0.1:1/s3cret x", "http://127.0.0.1:s3cret/x", "http://127.0.0.1:1/s3cret\x7f"):
        with pytest.raises(DeliveryError, match=r"^webhook: ") as caught:
            Webhook(url).send(SAID)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(SettingsError, match="RTML_ALERT_WEBHOOK") as refused:
        Settings(alert_webhook="ftp://s3cret")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("security", ["none", "starttls", "ssl"])
def test_mail_arrives(trusted, security):
    box = Mailbox(None if security == "none" else trusted, at_once=security == "ssl")
    with box.running():
        user: dict[str, Any] = (
            {} if security == "none" else {"smtp_user": "watch@example.org", "smtp_password": "hidden"}
        )
        settings = Settings(
            alert_email="ada@example.org, bob@example.org",
            smtp_host="localhost",
            smtp_port=box.port,
            smtp_security=security,
            **user,
        )
        *_, email = channels_of(settings, print)
        email.send(SAID)
    (mail,) = box.mails
    assert mail["Subject"] == "rtml: CRITICAL stream_lag source:a"
    assert mail["To"] == "ada@example.org, bob@example.org"
    assert mail["From"] == ("ada@example.org" if security == "none" else "watch@example.org")
    assert "runbook docs/runbooks/stream-lag.md" in mail.get_content()
    assert box.logins == ([] if security == "none" else [base64.b64encode(b"\0watch@example.org\0hidden").decode()])


def test_a_mail_server_that_is_not_trusted_or_refuses_gets_nothing(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Mailbox(context).running() as box:
        common: dict[str, Any] = {"alert_email": "a@example.org", "smtp_host": "localhost", "smtp_port": box.port}
        with pytest.raises(DeliveryError, match="SSLCertVerificationError"):
            Email(Settings(**common)).send(SAID)
        with pytest.raises(DeliveryError, match="SMTPSenderRefused 530"):
            Email(Settings(**common, smtp_security="none")).send(SAID)
    assert box.mails == []


class Clock:
    now = START

    def __call__(self):
        return self.now


def test_what_fails_is_tried_again_later_in_its_order(hook, ledger):
    hook.got.clear()
    clock = Clock()
    warnings: list[str] = []
    box = Outbox(ledger, [Webhook(hook.url())], LINKS, clock, warnings.append)
    ledger.put(notice())
    ledger.put(notice("resolved"))
    hook.answers = [503, 503]
    assert box.deliver_all() == 0
    assert box.deliver_all() == 0, "it is not due yet"
    clock.now += SECOND
    assert box.deliver_all() == 0
    clock.now += SECOND
    assert box.deliver_all() == 0
    assert hook.got == []
    assert warnings == [
        f"stream_lag source:a was not told (webhook: answered HTTP 503): tried again in {seconds} s"
        for seconds in (1, 2)
    ]
    clock.now += SECOND
    assert box.deliver_all() == 2
    assert [said["kind"] for said in hook.got] == ["fired", "resolved"]
    assert box.deliver_all() == 0


def test_a_clock_that_is_set_back_holds_up_no_message(hook, ledger):
    hook.got.clear()
    clock = Clock()
    box = Outbox(ledger, [Webhook(hook.url())], LINKS, clock)
    ledger.put(notice())
    hook.answers = [503]
    assert box.deliver_all() == 0
    clock.now -= 3600 * SECOND
    assert box.deliver_all() == 1


def test_after_a_day_a_message_is_given_up(hook, ledger):
    hook.got.clear()
    clock = Clock()
    box = Outbox(ledger, [Webhook(hook.url())], LINKS, clock)
    ledger.put(notice())
    clock.now += DAY + 5 * SECOND
    hook.answers = [500]
    ledger.put(notice("resolved", later=DAY // SECOND))
    assert box.deliver_all() == 0
    assert box.deliver_all() == 1
    assert [said["kind"] for said in hook.got] == ["resolved"]


def test_of_two_that_send_one_does_and_the_other_when_that_dies(hook, ledger):
    """While one waits for its answer, the other has nothing to send; what a dead one claimed is sent later."""
    hook.got.clear()
    clock = Clock()
    ledger.put(notice())
    entered, answer = threading.Event(), threading.Event()

    class Slow(Webhook):
        def send(self, said):
            entered.set()
            assert answer.wait(20)
            super().send(said)

    slow = threading.Thread(target=Outbox(ledger, [Slow(hook.url())], LINKS, clock).deliver_all)
    slow.start()
    assert entered.wait(20)
    assert Outbox(ledger, [Webhook(hook.url())], LINKS, clock).deliver_all() == 0
    answer.set()
    slow.join()
    assert len(hook.got) == 1

    class Dying(Webhook):
        def send(self, said):
            raise KeyboardInterrupt

    ledger.put(notice("resolved"))
    with pytest.raises(KeyboardInterrupt):
        Outbox(ledger, [Dying(hook.url())], LINKS, clock).deliver_all()
    clock.now += LEASE - 1
    assert Outbox(ledger, [Webhook(hook.url())], LINKS, clock).deliver_all() == 0
    clock.now += 1
    assert Outbox(ledger, [Webhook(hook.url())], LINKS, clock).deliver_all() == 1


def test_a_channel_that_hangs_holds_up_no_other(hook, tmp_path):
    hook.got.clear()
    stuck = threading.Event()

    class Hanging(Webhook):
        def send(self, said):
            stuck.wait(20)

    with Ledger(tmp_path / "y.sqlite", ["hanging", "webhook"]) as ledger:
        box = Outbox(ledger, [Hanging(hook.url(), "hanging"), Webhook(hook.url())], LINKS)
        box.start()
        begun = time.monotonic()
        ledger.put(notice())
        assert time.monotonic() - begun < 5
        until(lambda: hook.got)
        stuck.set()
        box.stop()
