// The official package of OpenAI from npm, unchanged but for its base URL.

import assert from "node:assert/strict";
import { VERSION as version } from "openai/version";
import OpenAI from "openai";

const { ASKONCE_URL, UPSTREAM_URL } = process.env;
const client = new OpenAI({ baseURL: `${ASKONCE_URL}/v1`, apiKey: "sk-node", maxRetries: 2 });
const model = "gpt-4o-mini";
const ask = (text, more = {}, options = {}) =>
  client.chat.completions.create({ model, messages: [{ role: "user", content: text }], ...more }, options);
const calls = async () => (await (await fetch(`${UPSTREAM_URL}/calls`)).json()).total;

async function expectCalls(expected, work) {
  const before = await calls();
  await work();
  assert.equal((await calls()) - before, expected, "calls of the provider");
}

async function all(stream) {
  const chunks = [];
  for await (const chunk of await stream) chunks.push(chunk);
  return chunks;
}

const essence = (value) =>
  JSON.parse(JSON.stringify(value, (name, inner) => (["id", "created", "created_at", "askonce"].includes(name) ? undefined : inner)));

const weather = [{ type: "function", function: { name: "get_weather", parameters: { type: "object", properties: {} } } }];

const scenarios = {
  async "chat is a hit the second time and when worded differently"() {
    await expectCalls(1, async () => {
      const first = await ask("How do I reset my password?");
      const again = await ask("How do I reset my password?");
      assert.notEqual(first.id, again.id);
      assert.deepEqual(essence(first), essence(again));
      const { data, response } = await ask("how can I reset my password").withResponse();
      assert.equal(data.choices[0].message.content, first.choices[0].message.content);
      assert.match(response.headers.get("cache-status"), /hit; .*detail=semantic/);
    });
  },
  async "streams are the same event for event"() {
    await expectCalls(1, async () => {
      const miss = await all(ask("What is the capital of France?", { stream: true }));
      const hit = await all(ask("What is the capital of France?", { stream: true }));
      assert.deepEqual(essence(miss), essence(hit));
      const whole = await ask("What is the capital of France?");
      assert.equal(hit.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), whole.choices[0].message.content);
    });
  },
  async "calls of tools are kept when they are marked safe"() {
    await expectCalls(1, async () => {
      const options = { headers: { "X-Askonce-Safe-Tools": "get_weather" } };
      const miss = await all(ask("What is the weather in Paris?", { tools: weather, stream: true }, options));
      const hit = await all(ask("What is the weather in Paris?", { tools: weather, stream: true }, options));
      assert.deepEqual(essence(miss), essence(hit));
      const whole = await ask("What is the weather in Paris?", { tools: weather }, options);
      assert.equal(JSON.parse(whole.choices[0].message.tool_calls[0].function.arguments).city, "Paris");
    });
  },
  async "JSON mode is kept"() {
    await expectCalls(1, async () => {
      for (let i = 0; i < 2; i++) {
        const answer = await ask("Tell me of Paris in JSON", { response_format: { type: "json_object" } });
        assert.equal(JSON.parse(answer.choices[0].message.content).city, "Paris");
      }
    });
  },
  async "responses are the same event for event"() {
    await expectCalls(1, async () => {
      const request = { model, input: "Name a river in Spain", stream: true };
      const miss = await all(client.responses.create(request));
      const hit = await all(client.responses.create(request));
      assert.deepEqual(essence(miss), essence(hit));
    });
  },
  async "embeddings are cached input by input"() {
    const embed = async (...input) =>
      (await client.embeddings.create({ model: "text-embedding-3-small", input })).data.map((item) => item.embedding[0]);
    await expectCalls(2, async () => {
      assert.deepEqual(await embed("four", "fifteen"), [4, 7]);
      assert.deepEqual(await embed("fifteen", "one"), [7, 3]);
      assert.deepEqual(await embed("one", "four"), [3, 4]);
    });
  },
  async "errors and retries are the provider's own"() {
    await assert.rejects(ask("This fails with 400"), (error) => error instanceof OpenAI.BadRequestError && error.code === "bad");
    await expectCalls(2, async () => assert.ok((await ask("This fails once, Node")).choices.length));
  },
  async "many at once make one call"() {
    await expectCalls(1, async () => {
      const answers = await Promise.all(Array.from({ length: 20 }, () => ask("This takes a while")));
      assert.equal(new Set(answers.map((answer) => answer.choices[0].message.content)).size, 1);
    });
  },
};

let failed = 0;
for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    await scenario();
    console.log(`ok      openai ${version}, Node: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  openai ${version}, Node: ${name}\n${error.stack}`);
  }
}
process.exit(failed ? 1 : 0);
