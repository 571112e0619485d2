"""HTTP connections: kept, and asked more than once at a time."""

import socket

from tests.serving.online import PATIENCE_SECONDS

SPENDING = "/v1/features/spending"


def request(user: str, close: bool = False) -> bytes:
    body = b'{"entities": [{"user": "%s"}]}' % user.encode()
    head = f"POST {SPENDING} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: {'close' if close else 'keep-alive'}\r\n\r\n".encode() + body


def test_requests_in_one_packet_are_answered_in_order(served):
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_SECONDS) as connection:
        users = ["ann", "nobody"] * 20
        connection.sendall(b"".join(request(user) for user in users[:-1]) + request(users[-1], close=True))
        read = b""
        while piece := connection.recv(65_536):
            read += piece
    answers = read.split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 40
    statuses = [b'"missing"' in answer for answer in answers]
    assert statuses == [user == "nobody" for user in users]


def test_a_connection_serves_many_requests(served):
    with socket.create_connection(("127.0.0.1", served.port), PATIENCE_SECONDS) as connection:
        for number in range(300):
            connection.sendall(request(("ann", "bob", "nobody")[number % 3]))
            read = b""
            while b"age_ms" not in read or not read.endswith(b"}"):
                read += connection.recv(65_536)
            assert read.startswith(b"HTTP/1.1 200")
            assert (b'"missing"' in read) == (number % 3 == 2)
