"""The official Python package of OpenAI, unchanged but for its base URL."""

import asyncio
import json

import openai
from pydantic import BaseModel

from check import ASKONCE, expect_calls, run, same, scenario

client = openai.OpenAI(base_url=ASKONCE + "/v1", api_key="sk-test", max_retries=2)
MODEL = "gpt-4o-mini"
WEATHER = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}}}}]


def user(text):
    return [{"role": "user", "content": text}]


def ask(text, **more):
    return client.chat.completions.create(model=MODEL, messages=user(text), **more)


@scenario
def chat_is_a_hit_the_second_time_and_when_worded_differently():
    with expect_calls(1):
        first = ask("How do I reset my password?")
        again = ask("How do I reset my password?")
        reworded = ask("how can I reset my password")
    assert first.id != again.id
    same(first, again)
    same(first, reworded)
    assert again.usage.model_extra["askonce"]["cached"] is True
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user("How do I reset my password?"))
    assert raw.headers["cache-status"].startswith("askonce; hit; "), raw.headers["cache-status"]
    assert raw.headers["age"].isdigit() and raw.headers["x-askonce-entry"]


@scenario
def streams_are_the_same_event_for_event():
    def stream(**more):
        return list(ask("What is the capital of France?", stream=True, **more))

    with expect_calls(1):
        miss, hit = stream(), stream()
        same(miss, hit, "chunks")
        assert miss[0].id != hit[0].id and len({chunk.id for chunk in hit}) == 1
        told = stream(stream_options={"include_usage": True})
        assert told[-1].usage.total_tokens == 30 and not told[-1].choices
        whole = ask("What is the capital of France?")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in hit if chunk.choices)
    assert whole.choices[0].message.content == text


@scenario
def a_whole_answer_is_streamed_to_who_wants_that():
    with expect_calls(1):
        whole = ask("Who wrote Hamlet?", n=2, logprobs=True)
        with client.chat.completions.stream(model=MODEL, messages=user("Who wrote Hamlet?"), n=2, logprobs=True) as stream:
            streamed = stream.get_final_completion()
    for one, other in zip(whole.choices, streamed.choices):
        assert one.message.content == other.message.content
        assert one.finish_reason == other.finish_reason
        assert [t.token for t in one.logprobs.content] == [t.token for t in other.logprobs.content]


@scenario
def calls_of_tools_are_kept_when_they_are_marked_safe():
    safe = {"X-Askonce-Safe-Tools": "get_*"}
    asked = "What is the weather in Paris?"
    with expect_calls(2):
        ask("Turn the lights off", tools=WEATHER)
        ask("Turn the lights off", tools=WEATHER)
    with expect_calls(1):
        miss = list(ask(asked, tools=WEATHER, stream=True, extra_headers=safe))
        hit = list(ask(asked, tools=WEATHER, stream=True, extra_headers=safe))
        same(miss, hit, "chunks")
        whole = ask(asked, tools=WEATHER, extra_headers=safe)
    call = whole.choices[0].message.tool_calls[0]
    assert call.id == "call_1" and json.loads(call.function.arguments)["city"] == "Paris"
    result = user(asked) + [whole.choices[0].message.model_dump(exclude_none=True),
                            {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}]
    with expect_calls(1):
        for _ in range(2):
            answer = client.chat.completions.create(model=MODEL, messages=result, tools=WEATHER)
            assert answer.choices[0].finish_reason == "stop"


class City(BaseModel):
    city: str
    population: int


@scenario
def json_mode_and_structured_answers_are_parsed():
    with expect_calls(2):
        for _ in range(2):
            plain = ask("Tell me of Paris in JSON", response_format={"type": "json_object"})
            assert json.loads(plain.choices[0].message.content)["city"] == "Paris"
            parsed = client.chat.completions.parse(model=MODEL, messages=user("Tell me of Paris"), response_format=City)
            assert parsed.choices[0].message.parsed == City(city="Paris", population=2100000)


@scenario
def responses_are_the_same_event_for_event():
    def stream():
        return list(client.responses.create(model=MODEL, input="Name a river in Spain", stream=True))

    with expect_calls(1):
        miss, hit = stream(), stream()
        same(miss, hit, "events")
        whole = client.responses.create(model=MODEL, input="Name a river in Spain")
        same(whole, hit[-1].response)
        assert whole.output_text.startswith("You asked: Name a river")
    with expect_calls(1):
        whole = client.responses.create(model=MODEL, input="Name a river in Italy", store=False)
        with client.responses.stream(model=MODEL, input="Name a river in Italy", store=False) as stream:
            assert stream.get_final_response().output_text == whole.output_text
        assert whole.id != client.responses.create(model=MODEL, input="Name a river in Italy", store=False).id


@scenario
def completions_of_old_are_cached_too():
    def complete(**more):
        return client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Once upon a time", **more)

    with expect_calls(1):
        miss, hit = list(complete(stream=True)), list(complete(stream=True))
        same(miss, hit, "chunks")
        assert complete().choices[0].text == "".join(chunk.choices[0].text for chunk in hit)


@scenario
def embeddings_are_cached_input_by_input():
    def embed(*inputs, **more):
        return client.embeddings.create(model="text-embedding-3-small", input=list(inputs), **more)

    with expect_calls(2):
        first = embed("one", "three")
        second = embed("three", "seventeen", "one")
        again = embed("seventeen", "three")
    assert [item.embedding[0] for item in first.data] == [3, 5]
    assert [item.embedding[0] for item in second.data] == [5, 9, 3]
    assert [item.embedding[0] for item in again.data] == [9, 5]
    with expect_calls(1):
        for _ in range(2):
            assert embed("one", encoding_format="float").data[0].embedding == [3.0, 0.5, -0.25]


@scenario
def errors_are_the_providers_own():
    try:
        ask("This fails with 400")
    except openai.BadRequestError as error:
        assert error.body["message"] == "that is wrong" and error.code == "bad", error.body
    else:
        raise AssertionError("no error")
    try:
        list(ask("This fails with 400 too", stream=True))
    except openai.BadRequestError as error:
        assert error.param == "messages"
    else:
        raise AssertionError("no error")


@scenario
def retries_of_the_client_reach_the_provider():
    with expect_calls(2):
        assert ask("This fails once").choices[0].message.content
    with expect_calls(2):
        assert list(ask("This fails once, streamed", stream=True))


@scenario
def what_is_said_to_the_cache_is_heard():
    with expect_calls(3):
        ask("Say hello", extra_body={"cache": {"no-store": True}})
        ask("Say hello")
        ask("Say hello", extra_headers={"Cache-Control": "no-cache"})
        ask("Say hello", extra_body={"cache": {"ttl": 60}})
    try:
        ask("Never said before", extra_headers={"Cache-Control": "only-if-cached"}, timeout=5)
    except openai.InternalServerError as error:
        assert error.status_code == 504 and error.code == "only_if_cached"
    else:
        raise AssertionError("no error")
    assert client.models.list().data[0].id == MODEL


@scenario
def many_at_once_make_one_call():
    async def many():
        async with openai.AsyncOpenAI(base_url=ASKONCE + "/v1", api_key="sk-test") as several:
            async def one(stream):
                answer = await several.chat.completions.create(
                    model=MODEL, messages=user("This takes a while"), stream=stream)
                if not stream:
                    return answer.choices[0].message.content
                return "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])

            return await asyncio.gather(*[one(i % 2 == 0) for i in range(40)])

    with expect_calls(1):
        assert len(set(asyncio.run(many()))) == 1


run(f"openai {openai.__version__}, Python")
