"""Many monitors in one request: all or none, or each by itself."""

from tests.stack.product import Api

GOOD = {"name": "mine", "target": "http://127.0.0.1:1/"}
WRONG = {"name": "mine", "target": "ftp://127.0.0.1/", "colour": "red"}


def test_five_hundred_at_once_come_back_in_their_order(owner: Api):
    drafts = [GOOD | {"name": f"monitor {number}", "paused": True} for number in range(500)]
    outcome = owner.ask("POST", "/v1/monitors:batch", json={"monitors": drafts})
    assert (outcome["created"], outcome["refused"]) == (500, 0)
    assert [result["monitor"]["name"] for result in outcome["results"]] == [draft["name"] for draft in drafts]
    one = owner.ask("GET", f"/v1/monitors/{outcome['results'][7]['monitor']['id']}")
    assert one == outcome["results"][7]["monitor"]
    many = owner.send("POST", "/v1/monitors:batch", json={"monitors": [*drafts, GOOD]})
    assert (many.status_code, many.json()["errors"][0]["pointer"]) == (422, "/monitors")


def test_all_or_none_names_every_fault_of_every_draft_and_writes_nothing(owner: Api):
    refused = owner.send(
        "POST", "/v1/monitors:batch", json={"monitors": [GOOD, WRONG, GOOD | {"timeout_seconds": 61}, 7]}
    )
    assert refused.status_code == 422
    pointers = {fault["pointer"] for fault in refused.json()["errors"]}
    assert pointers == {"/monitors/1/target", "/monitors/1/colour", "/monitors/2/timeout_seconds", "/monitors/3"}
    assert owner.ask("GET", "/v1/monitors")["data"] == []


def test_each_by_itself_creates_what_can_be_and_says_why_the_rest_was_not(owner: Api):
    body = {"monitors": [WRONG, GOOD, GOOD | {"interval_seconds": 10, "timeout_seconds": 20}], "each_by_itself": True}
    outcome = owner.ask("POST", "/v1/monitors:batch", json=body)
    assert (outcome["created"], outcome["refused"]) == (1, 2)
    assert [result["index"] for result in outcome["results"]] == [0, 1, 2]
    assert outcome["results"][1]["monitor"]["name"] == "mine"
    for index, pointer in ((0, "/monitors/0/target"), (2, "/monitors/2/timeout_seconds")):
        refused = outcome["results"][index]["refused"]
        assert (refused["status"], refused["code"]) == (422, "invalid_input")
        assert pointer in {fault["pointer"] for fault in refused["errors"]}
    assert len(owner.ask("GET", "/v1/monitors")["data"]) == 1


def test_a_batch_that_is_sent_again_makes_nothing_twice(owner: Api):
    body, key = {"monitors": [GOOD, GOOD]}, {"Idempotency-Key": "batch"}
    first, again = (owner.ask("POST", "/v1/monitors:batch", json=body, headers=key) for _ in range(2))
    assert first == again
    assert len(owner.ask("GET", "/v1/monitors")["data"]) == 2
