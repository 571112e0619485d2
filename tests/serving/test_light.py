"""A server that only reads: what it loads, and how much memory it takes."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from streaming.services import write_services
from tests.serving.conftest import ROOT
from tests.serving.online import OwnRedis, fill, services

ENGINES = {
    *("polars", "deltalake", "pandas", "pyarrow", "scipy"),
    *("dagster", "great_expectations", "bytewax", "pandera"),
}
LOADED = "print(json.dumps([sorted(sys.modules)]), flush=True)"
SERVE = f"""
import asyncio, json, sys
import serving.run, serving.__main__
from rtml.settings import Settings
from serving.app import App

async def ask():
    app = App(Settings(redis_url=sys.argv[1], home=sys.argv[2]))
    app.start()
    {LOADED}

    async def body():
        return json.dumps({{"entities": [{{"user": "ann"}}, {{"user": "nobody"}}], "timings": True}}).encode()

    replies = [await app.answer("POST", "/v1/features/spending", body)]
    replies += [await app.answer("GET", path, body) for path in ("/readyz", "/metrics", "/v1/services", "/v1/sla")]
    assert [reply.status for reply in replies] == [200] * 5
    {LOADED}
    await app.close()
    {LOADED}

asyncio.run(ask())
"""


@pytest.fixture
def unlogged():
    """A Redis whose services are not logged."""
    server = OwnRedis()
    try:
        client = server.start()
        fill(client)
        write_services(client, [msgspec.structs.replace(service, log=0.0) for service in services()])
        client.close()
        yield server.url
    finally:
        server.stop()


def test_it_loads_no_engine_to_answer_requests(unlogged, tmp_path):
    command = [sys.executable, "-c", SERVE, unlogged, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    moments = [json.loads(line)[0] for line in run.stdout.splitlines()]
    assert len(moments) == 3
    for modules in moments:
        assert {name.partition(".")[0] for name in modules} & ENGINES == set()
        assert [name for name in modules if name.startswith(("rtml.define", "rtml.point_in_time"))] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read from /proc")
def test_it_takes_little_memory_even_where_it_logs(served):
    for number in range(1_000):
        served.http.post("/v1/features/spending", json={"entities": [{"user": f"u{number}"}]})
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    megabytes = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    assert megabytes < 150
