"""The figures that Prometheus is shown of a look."""

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from rtml.instants import DAY, SECOND
from rtml_assets.watch.exporter import Check, Exporter, checks, families
from rtml_assets.watch.report import (
    Alert,
    DagsterLook,
    Disk,
    Flow,
    HotKey,
    LakeLook,
    Objective,
    Partition,
    Platform,
    Process,
    Quantiles,
    RedisLook,
    Report,
    ServerLook,
    Service,
    Source,
    View,
)

AT = 1_700_000_000 * SECOND
PLATFORM = Platform(
    RedisLook(True, latency_ms=0.5, used_bytes=50, max_bytes=100, policy="allkeys-lru", clock_offset_ms=-20.0),
    ServerLook(True, False, latency_ms=2.0, clock_offset_ms=1500.0),
    DagsterLook(False),
    LakeLook(True),
    {"home": Disk("/x", 10, 100), "lake": Disk("/y", words="not seen")},
    {"watch": Process(7, 2, 1, 1, 1), "serve": Process(None, 0)},
)
TILES = Flow(
    [Partition(0, lag_ms=1200.0, lag_entries=3, heartbeat_ms=40.0, missing_ms=0.0), Partition(1)],
    freshness_p50_ms=1.0,
    freshness_p99_ms=3.0,
    events_per_second=12.5,
    counts={"accepted": 10, "late": 0, "new": 4},
    minute={"accepted": 7},
    nulls={"amount": 0.25},
    hot=HotKey("rtml:{card|7}", 0.4, 0.01),
    stages={"gate": Quantiles(1.0, 2.0, 3.0)},
    cache={"cached_entities": 5},
)
REPORT = Report(
    AT,
    3.0,
    PLATFORM,
    {"payments": Source("quiet", flows={"tiles": TILES}, last_event_at=AT - 4 * SECOND, server_heartbeat_ms=55.0)},
    {"spent": View("payments", "v.1", "building", age_ms=900.0, nulls={"sum_1h": 0.5})},
    {"fraud": Service(1, True, 40, 2, 20.0, Quantiles(1.0, 2.0, 4.0), age_ms=800.0, probe_ms=3.0, probe_ok=True)},
    [
        Objective(
            "source:payments", "lag", 1200.0, 5000.0, "ms", True, 0.99, 30 * DAY, True, left=0.8, burn={"1h": 2.0}
        ),
        Objective("source:payments", "late", None, 0.1, "share", None, 0.99, 30 * DAY, False),
    ],
    [Alert("dagster_down", "platform", "critical", "words with a secret", AT)],
)

SHOWN = """
rtml_redis_up 1.0
rtml_redis_latency_seconds 0.0005
rtml_redis_used_bytes 50.0
rtml_redis_limit_bytes 100.0
rtml_redis_evicts 1.0
rtml_server_up 1.0
rtml_server_ready 0.0
rtml_server_latency_seconds 0.002
rtml_clock_offset_seconds{clock="redis"} -0.02
rtml_clock_offset_seconds{clock="server"} 1.5
rtml_dagster_up 0.0
rtml_lake_writable 1.0
rtml_disk_free_bytes{disk="home"} 10.0
rtml_disk_size_bytes{disk="home"} 100.0
rtml_process_up{process="watch"} 1.0
rtml_process_up{process="serve"} 0.0
rtml_process_restarts_total{process="watch"} 2.0
rtml_process_restarts_total{process="serve"} 0.0
rtml_process_crashes_total{process="watch"} 1.0
rtml_process_crashes_total{process="serve"} 0.0
rtml_process_recent_crashes{process="watch"} 1.0
rtml_process_recent_crashes{process="serve"} 0.0
rtml_stream_state{source="payments",state="flowing"} 0.0
rtml_stream_state{source="payments",state="quiet"} 1.0
rtml_stream_state{source="payments",state="replaying"} 0.0
rtml_stream_state{source="payments",state="stalled"} 0.0
rtml_stream_state{source="payments",state="unwritten"} 0.0
rtml_stream_state{source="payments",state="unseen"} 0.0
rtml_stream_last_event_age_seconds{source="payments"} 4.0
rtml_stream_server_heartbeat_seconds{source="payments"} 0.055
rtml_stream_lag_seconds{flow="tiles",partition="0",source="payments"} 1.2
rtml_stream_lag_entries{flow="tiles",partition="0",source="payments"} 3.0
rtml_stream_heartbeat_seconds{flow="tiles",partition="0",source="payments"} 0.04
rtml_stream_heartbeat_missing_seconds{flow="tiles",partition="0",source="payments"} 0.0
rtml_stream_freshness_seconds{flow="tiles",quantile="0.5",source="payments"} 0.001
rtml_stream_freshness_seconds{flow="tiles",quantile="0.99",source="payments"} 0.003
rtml_stream_events_per_second{flow="tiles",source="payments"} 12.5
rtml_stream_accepted_total{flow="tiles",source="payments"} 10.0
rtml_stream_late_total{flow="tiles",source="payments"} 0.0
rtml_stream_new_total{flow="tiles",source="payments"} 4.0
rtml_stream_recent_events{flow="tiles",kind="accepted",source="payments"} 7.0
rtml_stream_null_ratio{column="amount",flow="tiles",source="payments"} 0.25
rtml_stream_hot_key_ratio{flow="tiles",source="payments"} 0.4
rtml_stream_stage_seconds{flow="tiles",quantile="0.5",source="payments",stage="gate"} 0.001
rtml_stream_stage_seconds{flow="tiles",quantile="0.95",source="payments",stage="gate"} 0.002
rtml_stream_stage_seconds{flow="tiles",quantile="0.99",source="payments",stage="gate"} 0.003
rtml_stream_cached_entities{flow="tiles",source="payments"} 5.0
rtml_view_ready{view="spent"} 0.0
rtml_view_age_seconds{view="spent"} 0.9
rtml_view_null_ratio{feature="sum_1h",view="spent"} 0.5
rtml_service_ready{service="fraud"} 1.0
rtml_service_probe_up{service="fraud"} 1.0
rtml_service_probe_seconds{service="fraud"} 0.003
rtml_service_latency_seconds{quantile="0.5",service="fraud"} 0.001
rtml_service_latency_seconds{quantile="0.95",service="fraud"} 0.002
rtml_service_latency_seconds{quantile="0.99",service="fraud"} 0.004
rtml_service_requests_per_second{service="fraud"} 20.0
rtml_service_error_ratio{service="fraud"} 0.05
rtml_service_age_seconds{service="fraud"} 0.8
rtml_sla_good{objective="lag",target="source:payments"} 1.0
rtml_sla_value_seconds{objective="lag",target="source:payments"} 1.2
rtml_sla_bound_seconds{objective="lag",target="source:payments"} 5.0
rtml_sla_budget_left_ratio{objective="lag",target="source:payments"} 0.8
rtml_sla_burn_rate{objective="lag",target="source:payments",window="1h"} 2.0
rtml_sla_bound_ratio{objective="late",target="source:payments"} 0.1
rtml_alerts{alert="dagster_down",severity="critical",target="platform"} 1.0
rtml_alerts_open 1.0
"""


class _Fixed:
    def __init__(self, found):
        self.found = found

    def collect(self):
        return iter(self.found)


def shown(found) -> list[str]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(found if hasattr(found, "collect") else _Fixed(found))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_all_of_a_look_is_shown_in_base_units_and_what_was_not_seen_is_not():
    assert shown(list(families(REPORT))) == SHOWN.strip().splitlines()


def test_of_a_platform_that_is_gone_that_is_all_there_is():
    gone = Report(AT, 1.0, Platform(RedisLook(False, "refused"), ServerLook(False, words="refused")))
    assert shown(list(families(gone))) == ["rtml_redis_up 0.0", "rtml_server_up 0.0", "rtml_alerts_open 0.0"]


def test_checks_are_shown_by_asset_and_name():
    found = {"tiles/spent:canary": Check(False, "critical", AT), "stream/payments:sla_lag": Check(True, "warning", AT)}
    assert shown(list(checks(found))) == [
        'rtml_check_passed{asset="tiles/spent",check="canary",severity="critical"} 0.0',
        'rtml_check_passed{asset="stream/payments",check="sla_lag",severity="warning"} 1.0',
        'rtml_check_timestamp_seconds{asset="tiles/spent",check="canary"} 1.7e+09',
        'rtml_check_timestamp_seconds{asset="stream/payments",check="sla_lag"} 1.7e+09',
    ]


def test_nothing_is_shown_before_the_first_look_and_a_redis_that_is_away_costs_only_the_checks():
    client = redis.Redis(port=1, socket_timeout=0.2)
    assert shown(Exporter(lambda: None, client)) == []
    assert shown(Exporter(lambda: REPORT, client)) == SHOWN.strip().splitlines()
