"""LiteLLM, unchanged but for its base URL, as a client of OpenAI's and of Anthropic's protocol."""

import asyncio
import os
from importlib.metadata import version

# Its table of prices comes with it; nothing is fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from check import ASKONCE, expect_calls, run, same, scenario

OPENAI = {"model": "openai/gpt-4o-mini", "api_base": ASKONCE + "/v1", "api_key": "sk-litellm"}
ANTHROPIC = {"model": "anthropic/claude-test", "api_base": ASKONCE, "api_key": "sk-litellm", "max_tokens": 200}


def ask(text, of=None, **more):
    return litellm.completion(messages=[{"role": "user", "content": text}], **{**(of or OPENAI), **more})


@scenario
def completion_is_a_hit_the_second_time():
    for of in (OPENAI, ANTHROPIC):
        with expect_calls(1):
            first, again = ask("How do I reset my password?", of), ask("How do I reset my password?", of)
            reworded = ask("how can I reset my password", of)
        text = first.choices[0].message.content
        assert text == again.choices[0].message.content == reworded.choices[0].message.content


@scenario
def streams_are_the_same_piece_by_piece():
    for of in (OPENAI, ANTHROPIC):
        def stream():
            return [chunk.choices[0].delta.content for chunk in ask("What is the capital of France?", of, stream=True)]

        with expect_calls(1):
            miss, hit = stream(), stream()
            same(miss, hit, "pieces")
            whole = ask("What is the capital of France?", of).choices[0].message.content
        assert "".join(piece or "" for piece in hit) == whole


@scenario
def its_own_words_to_a_cache_are_heard():
    with expect_calls(2):
        ask("Say hello", extra_body={"cache": {"ttl": 60}})
        ask("Say hello", extra_body={"cache": {"no-cache": True}})
        ask("Say hello")


@scenario
def embeddings_are_cached_input_by_input():
    def embed(*inputs):
        answer = litellm.embedding(model="openai/text-embedding-3-small", input=list(inputs), encoding_format="float",
                                   api_base=ASKONCE + "/v1", api_key="sk-litellm")
        return [item["embedding"][0] for item in answer.data]

    with expect_calls(2):
        assert embed("four", "fifteen") == [4, 7]
        assert embed("fifteen", "one") == [7, 3]


@scenario
def errors_are_the_providers_own():
    try:
        ask("This fails with 400")
    except litellm.BadRequestError as error:
        assert "that is wrong" in str(error)
    else:
        raise AssertionError("no error")


@scenario
def many_at_once_make_one_call():
    async def many():
        messages = [{"role": "user", "content": "This takes a while"}]
        return await asyncio.gather(*[litellm.acompletion(messages=messages, **OPENAI) for _ in range(20)])

    with expect_calls(1):
        assert len({answer.choices[0].message.content for answer in asyncio.run(many())}) == 1


run(f"litellm {version('litellm')}, Python")
