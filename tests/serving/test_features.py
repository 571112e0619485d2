"""A request's meaning, without Redis."""

import pytest

from rtml import instants
from rtml.errors import InstantError, NotReadyError, RequestError, UnknownNameError
from rtml.instants import BEGINNING, DAY, HOUR, MINUTE, SECOND
from serving.features import LATEST, FeatureVectors, Lookup, Question, prepare
from serving.reader import Turns
from serving.state import Snapshot
from tests.serving.online import REGISTRY, services, version_of

PRESENT = instants.to_instant("2024-05-01T12:00:00Z")
USERS = REGISTRY.plans["user_purchases"]


def snapshot(purchases: int = PRESENT, visits: int = PRESENT, **changes) -> Snapshot:
    live = {view: version_of(plan) for view, plan in REGISTRY.plans.items()} | changes
    known = {service.name: service for service in services()}
    served = {k: {v.plan.fingerprint: v} for k, v in live.items() if v is not None}
    return Snapshot(known, served, {"purchases": purchases, "visits": visits})


def ask(service: str = "spending", at: object = PRESENT, edge: str = "wall_clock", **look) -> Question:
    return Question.of(snapshot(**look), service, at, edge, SECOND)


def test_an_unknown_service_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no service 'spendin'. Did you mean 'spending'\?"):
        ask("spendin")


def test_the_leading_edge_is_now_or_the_least_watermark():
    before = instants.now()
    assert before <= ask(at=None).at <= instants.now()
    assert ask("shopping", at=None, edge="watermark", visits=PRESENT - MINUTE).at == PRESENT - MINUTE
    with pytest.raises(RequestError, match="leading_edge must be"):
        ask(edge="now")


def test_a_source_without_watermark_has_no_watermark_edge():
    with pytest.raises(NotReadyError, match="service 'shopping' has no watermark yet"):
        ask("shopping", at=None, edge="watermark", visits=BEGINNING)


def test_an_instant_before_the_watermark_less_lateness_is_refused():
    assert ask(at=PRESENT - 15 * MINUTE).at == PRESENT - 15 * MINUTE
    with pytest.raises(InstantError, match=r"view 'user_purchases' can be asked from 2024-05-01T11:45:00Z on"):
        ask(at=PRESENT - 15 * MINUTE - 1)


@pytest.mark.parametrize("at", [-(10**30), BEGINNING, -1, 0, DAY, LATEST, 2**63, 10**30])
def test_an_instant_that_has_no_tile_is_refused(at):
    with pytest.raises(InstantError, match="an instant must lie between 1970-01-02T03:00:00Z"):
        ask(at=at, purchases=BEGINNING)


@pytest.mark.parametrize("at", [DAY + 3 * HOUR, LATEST - 1])
def test_the_first_and_the_last_instant_can_be_read(at):
    lookup = Lookup(ask(at=at, purchases=BEGINNING), Turns(), [("rtml:{user|ann}",)])
    assert lookup.commands()


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"user_purchases": None}, "it serves nothing yet"),
        ({"user_purchases": version_of(REGISTRY.plans["shop_visits"])}, "it serves"),
    ],
)
def test_a_view_that_is_not_served_is_told(changes, got):
    with pytest.raises(NotReadyError, match=f"service 'spending': view 'user_purchases' must serve .*{got}"):
        ask(**changes)


def test_a_key_must_be_there_and_of_its_type():
    question = ask("shopping")
    assert question.rows([{"user": "a", "shop": 1, "more": None}]) == [("rtml:{user|a}", "rtml:{shop|1}")]
    wrong: list[tuple[dict[str, object], str]] = [
        ({"user": "a"}, "entity 3: key 'shop' of entity 'shop' .* is missing"),
        ({"user": "a", "shp": 1}, "is missing. Did you mean 'shp'"),
        ({"user": 1, "shop": 1}, "must be a string; got 1"),
        ({"user": "a", "shop": True}, "must be an integer; got True"),
        ({"user": "a", "shop": 1.0}, r"must be an integer; got 1\.0"),
        ({"user": None, "shop": 1}, "must be a string; got None"),
    ]
    for entity, said in wrong:
        with pytest.raises(RequestError, match=said):
            question.rows([entity], first=3)


def test_of_no_entities_there_are_no_rows_and_nothing_is_read():
    lookup = prepare(snapshot(), Turns(), "shopping", [], PRESENT, "wall_clock", SECOND)
    assert not lookup.unfinished
    vectors = lookup.vectors()
    assert (vectors.rows, vectors.status) == ([], {"user_purchases": [], "shop_visits": []})
    assert vectors.features == ["user_purchases__count_3h", "shop_visits__count_1h"]


def test_an_answer_can_be_parted_and_joined():
    whole = FeatureVectors(["v__a"], [[1], [2], [3]], {"v": ["fresh", "stale", "missing"]}, PRESENT, None, None)
    parts = [whole.part(0, 1), whole.part(1, 3)]
    assert (parts[1].rows, parts[1].status) == ([[2], [3]], {"v": ["stale", "missing"]})
    assert FeatureVectors.joined(parts) == whole
