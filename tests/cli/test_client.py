"""The API met in bad weather: limits, silence, cut connections, and answers that are not the API's."""

import pytest
import requests
import responses
from responses import matchers

from server.cli.client import Api, Refused
from server.settings import ClientSettings

URL = "https://tocsin.example.com"
MONITORS = f"{URL}/v1/monitors"
ONE = f"{MONITORS}/7"


class Weather:
    """The API behind `responses`; it notes how long it was waited and what was said."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self.mock = mock
        self.waited: list[float] = []
        self.said: list[str] = []
        settings = ClientSettings(URL, "tocsin_key")
        self.api = Api(settings, self.waited.append, self.said.append, lambda: 0.0)


@pytest.fixture
def weather():
    with responses.RequestsMock() as mock:
        yield Weather(mock)


def problem(code, status, **more):
    return {"json": {"code": code, "detail": f"{code}.", "status": status, "title": code, **more}, "status": status}


def test_a_list_is_read_to_its_end_with_the_key(weather):
    key = matchers.header_matcher({"Authorization": "Bearer tocsin_key"})
    pages = [({"limit": "200"}, [1, 2], "next"), ({"limit": "200", "cursor": "next"}, [3], None)]
    for query, data, cursor in pages:
        weather.mock.get(
            MONITORS,
            json={"data": data, "next_cursor": cursor},
            match=[key, matchers.query_param_matcher(query)],
        )
    assert list(weather.api.list_all("/v1/monitors")) == [1, 2, 3]


def test_a_limit_is_waited_for_as_long_as_the_api_says(weather):
    for _ in range(3):
        weather.mock.get(ONE, **problem("rate_limited", 429), headers={"Retry-After": "12"})
    weather.mock.get(ONE, json={"id": "7"})
    assert weather.api.read("/v1/monitors/7") == {"id": "7"}
    assert weather.waited == [12, 12, 12]
    assert weather.said[0] == "The API asks us to wait 12 s."


def test_nobody_waits_for_hours(weather):
    weather.mock.get(ONE, **problem("rate_limited", 429), headers={"Retry-After": "86400"})
    with pytest.raises(Refused, match="rate_limited"):
        weather.api.read("/v1/monitors/7")
    assert weather.waited == []


def test_a_post_is_sent_again_under_the_same_key(weather):
    same = matchers.header_matcher({"Idempotency-Key": "once"})
    weather.mock.post(MONITORS, body=requests.ConnectionError("cut"), match=[same])
    weather.mock.post(MONITORS, **problem("idempotency_key_in_use", 409), match=[same])
    weather.mock.post(MONITORS, **problem("unavailable", 503), match=[same])
    weather.mock.post(MONITORS, json={"id": "7"}, status=201, match=[same])
    assert weather.api.create("/v1/monitors", {"name": "a"}, "once") == {"id": "7"}
    assert weather.waited == [0.5, 1.0, 1.0]


def test_after_five_tries_the_api_is_away(weather):
    for _ in range(5):
        weather.mock.get(ONE, body=requests.ConnectionError("cut"))
    with pytest.raises(Refused) as refused:
        weather.api.read("/v1/monitors/7")
    assert (refused.value.status, refused.value.code) == (0, "unreachable")
    assert str(refused.value) == f"{URL} does not answer: the connection was refused, or broke."
    assert weather.waited == [0.5, 1.0, 2.0, 4.0]


def test_a_change_insists_on_the_version_that_was_read(weather):
    weather.mock.patch(ONE, json={}, match=[matchers.header_matcher({"If-Match": '"3.0"'})])
    weather.api.change("/v1/monitors/7", {"name": "a"}, 3)
    weather.mock.patch(ONE, **problem("precondition_failed", 412))
    with pytest.raises(Refused) as refused:
        weather.api.change("/v1/monitors/7", {"name": "a"}, 3)
    assert refused.value.code == "precondition_failed"


def test_a_delete_that_was_cut_off_and_finds_nothing_is_done(weather):
    weather.mock.delete(ONE, body=requests.ConnectionError("cut"))
    weather.mock.delete(ONE, **problem("not_found", 404))
    weather.api.delete("/v1/monitors/7", 3)


def test_a_change_that_was_cut_off_and_finds_another_version_is_not_called_done(weather):
    weather.mock.patch(ONE, body=requests.ReadTimeout("slow"))
    weather.mock.patch(ONE, **problem("precondition_failed", 412))
    with pytest.raises(Refused) as refused:
        weather.api.change("/v1/monitors/7", {"name": "a"}, 3)
    assert (refused.value.code, weather.said) == (
        "unsure",
        [f"{URL} does not answer: it takes too long. Trying again."],
    )


def test_every_field_that_is_refused_is_told(weather):
    errors = [{"pointer": "/target", "code": "url_private", "detail": "No."}]
    weather.mock.post(MONITORS, **problem("invalid_input", 422, errors=errors))
    with pytest.raises(Refused) as refused:
        weather.api.create("/v1/monitors", {}, "once")
    assert refused.value.fields == (("/target", "No."),)


NOT_THE_API = [
    ({"body": "<html>", "status": 404}, "It answers 404, and not as the API does. Is TOCSIN_URL right?"),
    ({"body": "<html>", "status": 200}, "It answers, but not as the API does. Is TOCSIN_URL right?"),
    ({"status": 301, "headers": {"Location": "https://elsewhere.example.com/"}}, "It points to https://elsewhere."),
]


@pytest.mark.parametrize(("answer", "words"), NOT_THE_API)
def test_what_is_not_the_api_is_told_so_and_gets_no_second_request(weather, answer, words):
    weather.mock.get(ONE, **answer)
    with pytest.raises(Refused) as refused:
        weather.api.read("/v1/monitors/7")
    assert words in str(refused.value)


def test_a_netrc_does_not_take_the_keys_place(weather, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine tocsin.example.com login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    weather.mock.get(ONE, json={}, match=[matchers.header_matcher({"Authorization": "Bearer tocsin_key"})])
    weather.api.read("/v1/monitors/7")
