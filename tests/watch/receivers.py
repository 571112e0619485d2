"""Real servers that take alerts: a webhook's, and one for mail."""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import threading
from contextlib import contextmanager, suppress
from email import message_from_bytes
from email.policy import default
from typing import Any


class Hook:
    """An HTTP server that keeps what is posted to it; `answers` are the next statuses, 200 after them."""

    def __init__(self):
        self.got: list[Any] = []
        self.paths: list[str] = []
        self.answers: list[int] = []

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"

    @contextmanager
    def running(self):
        hook = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = hook.answers.pop(0) if hook.answers else 200
                if status == 200:
                    hook.got.append(json.loads(body))
                    hook.paths.append(self.path)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_):
                return

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


class Mailbox:
    """An SMTP server that keeps mail: plain, or with TLS from the start or after STARTTLS; then it asks for a login."""

    def __init__(self, context: ssl.SSLContext | None = None, *, at_once=False):
        self.context, self.at_once = context, at_once
        self.mails: list[Any] = []
        self.logins: list[str] = []

    @contextmanager
    def running(self):
        box = self

        class Session(socketserver.StreamRequestHandler):
            def handle(self):
                self.secure = self.ready = False
                # Who does not trust the certificate hangs up.
                with suppress(OSError):
                    if box.at_once:
                        self.encrypt()
                    self.say("220 here")
                    while (line := self.rfile.readline()) and self.obey(line.decode().strip()):
                        pass
                if self.secure:
                    for each in (self.rfile, self.wfile, self.connection):
                        each.close()

            def say(self, words):
                self.wfile.write(f"{words}\r\n".encode())
                self.wfile.flush()

            def encrypt(self):
                assert box.context is not None
                self.connection = box.context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
                self.secure = True

            def obey(self, line):
                verb = line.split(" ")[0].upper()
                match verb:
                    case "EHLO":
                        offers = ["STARTTLS"] if box.context and not self.secure else []
                        offers += ["AUTH PLAIN"] if self.secure else []
                        for offer in ["here", *offers]:
                            self.say(f"250-{offer}")
                        self.say("250 8BITMIME")
                    case "STARTTLS":
                        self.say("220 go on")
                        self.encrypt()
                    case "AUTH":
                        box.logins.append(line.split(" ")[2])
                        self.ready = True
                        self.say("235 welcome")
                    case "DATA":
                        self.say("354 go on")
                        body = b""
                        while (more := self.rfile.readline()) != b".\r\n":
                            body += more
                        box.mails.append(message_from_bytes(body, policy=default))
                        self.say("250 taken")
                    case "MAIL" if box.context and not self.ready:
                        self.say("530 log in first")
                    case "QUIT":
                        self.say("221 bye")
                        return False
                    case _:
                        self.say("250 fine")
                return True

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        with Server(("127.0.0.1", 0), Session) as server:
            self.port = server.server_address[1]
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
