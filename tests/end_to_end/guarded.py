"""Definitions for the test of the secured platform: the stream is one of those in ops/redis/users.acl."""

import rtml
from rtml import Count, Entity, EventSource, FeatureService, Mean, RedisStream, StreamFeatureView


class Departure(rtml.Event):
    event_id: str
    event_time: rtml.Timestamp
    origin: str
    delay: float


departures = EventSource(
    name="departures",
    schema=Departure,
    timestamp="event_time",
    event_id="event_id",
    stream=RedisStream("departures"),
    lateness="1m",
    starts="2024-01-01",
)
delays = StreamFeatureView(
    name="delays",
    source=departures,
    entity=Entity("origin"),
    features=[Count(windows=["1h"]), Mean("delay", windows=["1h"])],
)
eta = FeatureService("eta", features=[delays], log=1.0)
