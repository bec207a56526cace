"""LangChain's client of OpenAI, unchanged but for its base URL."""

import asyncio
from importlib.metadata import version

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from check import ASKONCE, expect_calls, run, same, scenario

model = ChatOpenAI(model="gpt-4o-mini", base_url=ASKONCE + "/v1", api_key="sk-langchain", max_retries=2)


@scenario
def invoke_is_a_hit_the_second_time():
    messages = [SystemMessage("You are brief."), HumanMessage("How do I reset my password?")]
    with expect_calls(1):
        first, again = model.invoke(messages), model.invoke(messages)
        reworded = model.invoke([messages[0], HumanMessage("how can I reset my password")])
    assert first.content == again.content == reworded.content
    assert again.usage_metadata["total_tokens"] == 30


@scenario
def streams_are_the_same_piece_by_piece():
    with expect_calls(1):
        miss = [chunk.content for chunk in model.stream("What is the capital of France?")]
        hit = [chunk.content for chunk in model.stream("What is the capital of France?")]
        same(miss, hit, "pieces")
        assert "".join(hit) == model.invoke("What is the capital of France?").content


@tool
def get_weather(city: str, unit: str) -> str:
    """The weather of a city."""
    return f"18 degrees {unit} in {city}"


@scenario
def tools_are_bound_and_called():
    bound = model.bind_tools([get_weather]).bind(extra_headers={"X-Askonce-Safe-Tools": "get_weather"})
    with expect_calls(1):
        for _ in range(2):
            answer = bound.invoke("What is the weather in Paris?")
            assert get_weather.invoke(answer.tool_calls[0]["args"]) == "18 degrees celsius in Paris"


class City(BaseModel):
    city: str
    population: int


@scenario
def structured_answers_are_parsed():
    with expect_calls(1):
        for _ in range(2):
            told = model.with_structured_output(City, method="json_schema").invoke("Tell me of Paris")
            assert told == City(city="Paris", population=2100000)


@scenario
def embeddings_are_cached_input_by_input():
    embeddings = OpenAIEmbeddings(model="text-embedding-3-small", base_url=ASKONCE + "/v1", api_key="sk-langchain",
                                  check_embedding_ctx_length=False)
    with expect_calls(2):
        assert [v[0] for v in embeddings.embed_documents(["four", "fifteen"])] == [4, 7]
        assert [v[0] for v in embeddings.embed_documents(["fifteen", "one"])] == [7, 3]
        assert embeddings.embed_query("four")[0] == 4


@scenario
def many_at_once_make_one_call():
    async def many():
        return await asyncio.gather(*[model.ainvoke("This takes a while") for _ in range(20)])

    with expect_calls(1):
        assert len({answer.content for answer in asyncio.run(many())}) == 1


run(f"langchain-openai {version('langchain-openai')}, Python")
