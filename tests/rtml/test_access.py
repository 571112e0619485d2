"""API keys: what is kept, what counts, and that changes need no order."""

from __future__ import annotations

from itertools import permutations

import msgspec
import pytest

from rtml import access
from rtml.access import Key, create_key, find, merge
from rtml.errors import RequestError

NOW = 1_700_000_000_000_000


def test_only_a_hash_is_kept() -> None:
    text, key = create_key("model", ["read:eta"], NOW)
    assert text.startswith(f"rtml_{key.id}_")
    secret = text.rpartition("_")[2]
    assert len(bytes.fromhex(secret)) == 32
    assert secret not in repr(key)
    assert find({key.id: key}, text, NOW) == key
    assert create_key("model", ["read:eta"], NOW)[0] != text


@pytest.mark.parametrize("change", [{"revoked": True}, {"expires_at": NOW}, {"digest": "0" * 64}])
def test_what_no_longer_counts(change: dict[str, object]) -> None:
    text, key = create_key("model", ["admin"], NOW)
    assert find({key.id: msgspec.structs.replace(key, **change)}, text, NOW) is None


def test_a_key_of_another_id_is_none() -> None:
    (one, first), (_, second) = (create_key(name, ["admin"], NOW) for name in "ab")
    swapped = one.replace(first.id, second.id)
    assert find({first.id: first, second.id: second}, swapped, NOW) is None
    assert find({}, one, NOW) is find({}, "", NOW) is find({}, "é" * 100, NOW) is None


@pytest.mark.parametrize(
    ("scopes", "allowed", "refused"),
    [
        (["read:eta"], ["", "read:eta"], ["read:etas", "push:eta", "admin", "read:*"]),
        (["push:*"], ["push:departures"], ["read:eta", "admin"]),
        (["admin"], ["read:eta", "push:x", "admin", ""], []),
    ],
)
def test_scopes(scopes: list[str], allowed: list[str], refused: list[str]) -> None:
    key = create_key("k", scopes, NOW)[1]
    assert [scope for scope in [*allowed, *refused] if key.allows(scope)] == allowed


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("reed:eta", "got 'reed:eta'. Did you mean 'read'?"),
        ("read", "a scope must be read:<service>"),
        ("read:", "a scope must be read:<service>"),
    ],
)
def test_what_is_no_scope_is_refused(scope: str, said: str) -> None:
    with pytest.raises(RequestError, match="scope") as refused:
        create_key("k", [scope], NOW)
    assert said in str(refused.value)


def test_a_key_needs_a_name_and_a_scope() -> None:
    with pytest.raises(RequestError, match="a key's name must be"):
        create_key("a b", ["admin"], NOW)
    with pytest.raises(RequestError, match="a key needs a scope"):
        create_key("a", [], NOW)


def test_changes_come_to_the_same_in_any_order() -> None:
    _, key = create_key("k", ["admin"], NOW, NOW + 100)
    changes = [key, msgspec.structs.replace(key, expires_at=NOW + 10), msgspec.structs.replace(key, revoked=True)]
    expected = {key.id: msgspec.structs.replace(key, expires_at=NOW + 10, revoked=True)}
    assert [merge(order) for order in permutations(changes)] == [expected] * 6
    assert merge([]) == {}


def test_who_compares_does_so_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(access, "compare_digest", compare)
    text, key = create_key("k", ["admin"], NOW)
    known: dict[str, Key] = {key.id: key}
    for presented in (text, text[:-1] + "g", "rtml_00000000_" + "0" * 64, "", "x"):
        find(known, presented, NOW)
    assert len(compared) == 5  # also where there is nothing to compare with
    assert {len(one) == len(other) == 64 for one, other in compared} == {True}
