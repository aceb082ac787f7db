"""Small parts of the API: cursors, media types, remembered keys, metrics."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.api.answers import ARROW, JSON, TEXT, dumped, wanted
from launcher.api.pages import (
    name_cursor,
    offset_cursor,
    page,
    read_name_cursor,
    read_offset_cursor,
    read_time_cursor,
    time_cursor,
)
from launcher.errors import NotAcceptable, RequestError
from launcher.keyring import Keyring
from launcher.state.database import Database
from launcher.state.keys import KeyStore

AT = datetime(2025, 3, 15, 10, 0, 0, 123456, tzinfo=UTC)


class TestCursors:
    def test_say_where_the_next_page_begins(self) -> None:
        assert read_time_cursor("j", time_cursor("j", AT, "batch-1")) == (AT, "batch-1")
        assert read_name_cursor("m", name_cursor("m", "churn")) == "churn"
        assert read_offset_cursor("s", offset_cursor("s", 300)) == 300
        assert (read_time_cursor("j", None), read_name_cursor("m", None), read_offset_cursor("s", None)) == (
            None,
            None,
            0,
        )

    def test_are_good_for_their_own_list_only(self) -> None:
        for cursor in (time_cursor("t", AT, "x"), name_cursor("j", "x"), offset_cursor("j", 3)):
            with pytest.raises(RequestError, match="cursor is no cursor of this list"):
                read_time_cursor("j", cursor)

    @given(st.text(max_size=60) | st.binary(max_size=40).map(lambda data: data.hex()))
    def test_that_are_none_are_refused(self, text: str) -> None:
        for read in (read_time_cursor, read_name_cursor, read_offset_cursor):
            with pytest.raises(RequestError):
                read("j", text)

    @pytest.mark.parametrize("values", [[-1], [2**60], [1.5], [True], ["1"], [], [1, 2]])
    def test_of_rows_are_whole_numbers(self, values: list[object]) -> None:
        import base64
        import json

        cursor = base64.urlsafe_b64encode(json.dumps(["s", *values]).encode()).decode()

        with pytest.raises(RequestError):
            read_offset_cursor("s", cursor)

    def test_come_while_there_is_more(self) -> None:
        assert page([1, 2, 3], 2, str, str) == (["1", "2"], "2")
        assert page([1, 2], 2, str, str) == (["1", "2"], None)
        assert page([], 2, str, str) == ([], None)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (ARROW, ARROW),
        (f"{ARROW}, */*;q=0.1", ARROW),
        (f"{JSON};q=0.5, {ARROW}", ARROW),
        (f"{ARROW};q=0.5, {JSON};q=0.9", JSON),
        (f"application/*;q=0.2, {JSON};q=0.1", ARROW),
        (f"{ARROW};q=0", None),
        ("text/html", None),
        (f"*/*, {JSON};q=0", ARROW),
        (f"{JSON};q=nonsense", None),
        ("APPLICATION/JSON", JSON),
        (", ,;", None),
    ],
)
def test_the_media_type_is_what_is_wanted_most(accept: str | None, chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(NotAcceptable, match="accept application/json or "):
            wanted(accept, (JSON, ARROW))
    else:
        assert wanted(accept, (JSON, ARROW)) == chosen


def test_text_is_offered_too() -> None:
    assert wanted("text/*", (JSON, TEXT)) == TEXT


def test_answers_are_json_whatever_is_in_them() -> None:
    assert dumped({"a": "é\ud800"}) == '{"a":"é?"}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        dumped(float("nan"))


class TestKeyring:
    @pytest.fixture
    def keys(self, tmp_path: Path) -> KeyStore:
        return KeyStore(Database.at(tmp_path / "penstock.db"))

    def test_remembers_a_key_for_a_second(self, keys: KeyStore) -> None:
        now = 0.0
        ring = Keyring(keys, keyless=False, clock=lambda: now)
        key, token = keys.create("acme", "viewer")
        seen = [ring.remembers(token), ring.check(token), ring.remembers(token)]
        keys.revoke(key.id)
        now = 0.9
        still = ring.remembers(token)
        now = 1.0
        after = [ring.remembers(token), ring.check(token), ring.remembers(token)]

        assert seen == [None, key, key]
        assert still == key
        assert after == [None, None, None]

    def test_remembers_no_key_that_there_is_not(self, keys: KeyStore) -> None:
        ring = Keyring(keys, keyless=False)

        assert ring.check("psk_01234567_" + "x" * 43) is None
        assert ring.check("\ud800") is None
        assert not ring._known

    def test_asks_for_keys_as_soon_as_there_is_one(self, keys: KeyStore) -> None:
        now = 0.0
        ring = Keyring(keys, keyless=True, clock=lambda: now)
        seen = [ring.remembers_keyless(), ring.is_keyless(), ring.remembers_keyless()]
        key, _ = keys.create("acme", "viewer")
        now = 1.0
        seen += [ring.remembers_keyless(), ring.is_keyless()]
        keys.revoke(key.id)
        now = 100.0
        seen += [ring.remembers_keyless(), ring.is_keyless()]

        assert seen == [None, True, True, None, False, False, False]

    def test_asks_again_whether_a_key_opens(self, keys: KeyStore) -> None:
        now = 0.0
        ring = Keyring(keys, keyless=True, clock=lambda: now)
        opened = [ring.still_opens("")]
        key, token = keys.create("acme", "viewer")
        now = 1.0
        opened += [ring.still_opens(""), ring.still_opens(token)]
        keys.revoke(key.id)
        opened += [ring.still_opens(token)]
        now = 2.0
        opened += [ring.still_opens(token)]

        assert opened == [True, False, True, True, False]

    def test_of_a_service_with_keys_never_opens_the_doors(self, keys: KeyStore) -> None:
        assert not Keyring(keys, keyless=False).is_keyless()

    def test_remembers_so_many(self, keys: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("launcher.keyring._MOST", 2)
        ring = Keyring(keys, keyless=False, clock=lambda: 0.0)
        tokens = [keys.create("acme", "viewer")[1] for _ in range(3)]
        for token in tokens:
            ring.check(token)

        assert [ring.remembers(token) is not None for token in tokens] == [False, True, True]
