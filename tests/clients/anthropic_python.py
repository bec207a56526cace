"""The official Python package of Anthropic, unchanged but for its base URL."""

import asyncio

import anthropic

from check import ASKONCE, expect_calls, run, same, scenario

client = anthropic.Anthropic(base_url=ASKONCE, api_key="sk-ant-test", max_retries=2)
MODEL = "claude-test"
WEATHER = [{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]
SAFE = {"X-Askonce-Safe-Tools": "get_weather"}


def ask(text, **more):
    messages = [{"role": "user", "content": text}]
    return client.messages.create(model=MODEL, max_tokens=200, messages=messages, **more)


@scenario
def messages_are_hits_the_second_time_and_when_worded_differently():
    with expect_calls(1):
        first = ask("How do I reset my password?")
        again = ask("How do I reset my password?")
        reworded = ask("how can I reset my password")
    assert first.id != again.id and again.id.startswith("msg_")
    same(first, again)
    same(first, reworded)
    with expect_calls(1):
        ask("How do I reset my password?", system="Answer in French.")


@scenario
def streams_are_the_same_event_for_event():
    with expect_calls(1):
        miss = list(ask("What is the capital of France?", stream=True))
        hit = list(ask("What is the capital of France?", stream=True))
        same(miss, hit, "events")
        whole = ask("What is the capital of France?")
    same(whole.content[0].text, "".join(
        event.delta.text for event in hit if event.type == "content_block_delta"))


@scenario
def a_whole_answer_is_streamed_to_who_wants_that():
    with expect_calls(1):
        whole = ask("Who wrote Hamlet?")
        messages = [{"role": "user", "content": "Who wrote Hamlet?"}]
        with client.messages.stream(model=MODEL, max_tokens=200, messages=messages) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
    assert text == whole.content[0].text
    assert final.stop_reason == "end_turn" and final.usage.output_tokens == 9


@scenario
def calls_of_tools_are_kept_when_they_are_marked_safe():
    with expect_calls(2):
        ask("Turn the lights off", tools=WEATHER)
        ask("Turn the lights off", tools=WEATHER)
    asked = "What is the weather in Paris?"
    with expect_calls(1):
        miss = list(ask(asked, tools=WEATHER, stream=True, extra_headers=SAFE))
        hit = list(ask(asked, tools=WEATHER, stream=True, extra_headers=SAFE))
        same(miss, hit, "events")
        whole = ask(asked, tools=WEATHER, extra_headers=SAFE)
    use = whole.content[1]
    assert use.input == {"city": "Paris", "unit": "celsius"} and use.id == "toolu_1"
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": [b.model_dump() for b in whole.content]},
             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees"}]}]
    with expect_calls(1):
        for _ in range(2):
            done = client.messages.create(model=MODEL, max_tokens=200, messages=turns, tools=WEATHER)
            assert done.stop_reason == "end_turn"


@scenario
def errors_and_retries_are_the_providers_own():
    try:
        ask("This fails with 400")
    except anthropic.BadRequestError as error:
        assert error.body["error"]["message"] == "that is wrong"
    else:
        raise AssertionError("no error")
    with expect_calls(2):
        assert ask("This fails once, Claude").content
    try:
        ask("Never said before", extra_headers={"Cache-Control": "only-if-cached"}, timeout=5)
    except anthropic.InternalServerError as error:
        assert error.status_code == 504 and error.body["error"]["type"] == "api_error"
    else:
        raise AssertionError("no error")


@scenario
def what_is_not_cached_passes_through():
    with expect_calls(1):
        counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert counted.input_tokens == 21


@scenario
def many_at_once_make_one_call():
    async def many():
        async with anthropic.AsyncAnthropic(base_url=ASKONCE, api_key="sk-ant-test") as several:
            messages = [{"role": "user", "content": "This takes a while"}]
            one = lambda: several.messages.create(model=MODEL, max_tokens=200, messages=messages)
            return await asyncio.gather(*[one() for _ in range(30)])

    with expect_calls(1):
        assert len({answer.content[0].text for answer in asyncio.run(many())}) == 1


run(f"anthropic {anthropic.__version__}, Python")
