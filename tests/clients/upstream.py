"""A provider that needs no key and no network: it speaks the protocols of OpenAI and Anthropic.

What it answers depends on the request alone, but for ids and times, which are new each time as a provider's are.
It counts its calls: `GET /calls` tells how many there were, by path.
"""

import base64
import itertools
import json
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

calls = {}
failed_once = set()
lock = threading.Lock()
number = itertools.count(1)


def words(text):
    return [word if i == 0 else " " + word for i, word in enumerate(text.split(" "))]


def last_text(body):
    for message in reversed(body.get("messages") or []):
        content = message.get("content")
        if isinstance(content, str):
            return content
        for part in content or []:
            if part.get("type") == "text":
                return part["text"]
    return str(body.get("input") or body.get("prompt") or "")


def said(body):
    if "json" in json.dumps(body.get("response_format") or {}) or "text" in body and "json" in json.dumps(body["text"]):
        return json.dumps({"city": "Paris", "population": 2100000})
    return f"You asked: {last_text(body)} The answer takes a few words."


def call_of_tool(body):
    tools = body.get("tools") or []
    asked_before = any(m.get("role") == "tool" for m in body.get("messages") or [])
    asked_before |= "tool_result" in json.dumps(body.get("messages") or [])
    if not tools or asked_before:
        return None
    tool = tools[0]
    name = tool.get("name") or tool["function"]["name"]
    return name, {"city": "Paris", "unit": "celsius"}


def chat(body, ident):
    usage = {"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 30}
    choices = []
    for index in range(body.get("n") or 1):
        message = {"role": "assistant", "content": said(body), "refusal": None}
        finish = "stop"
        call = call_of_tool(body)
        if call:
            message["content"] = None
            message["tool_calls"] = [{"id": "call_1", "type": "function",
                                      "function": {"name": call[0], "arguments": json.dumps(call[1])}}]
            finish = "tool_calls"
        choice = {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
        if body.get("logprobs"):
            choice["logprobs"] = {"refusal": None, "content": [
                {"token": word, "logprob": -0.25, "bytes": list(word.encode()), "top_logprobs": []}
                for word in words(message["content"])]}
        choices.append(choice)
    return {"id": f"chatcmpl-{ident}", "object": "chat.completion", "created": int(time.time()),
            "model": body["model"], "choices": choices, "usage": usage, "system_fingerprint": "fp_1"}


def chat_chunks(body, ident):
    whole = chat(body, ident)
    told = (body.get("stream_options") or {}).get("include_usage")

    def chunk(choices, usage=None):
        made = {"id": whole["id"], "object": "chat.completion.chunk", "created": whole["created"],
                "model": whole["model"], "system_fingerprint": "fp_1", "choices": choices}
        if told:
            made["usage"] = usage
        return made

    def delta(choice, delta, finish=None, logprobs=None):
        return chunk([{"index": choice["index"], "delta": delta, "logprobs": logprobs, "finish_reason": finish}])

    for choice in whole["choices"]:
        message = choice["message"]
        yield delta(choice, {"role": "assistant", "content": "" if message["content"] else None, "refusal": None})
        for at, word in enumerate(words(message["content"] or "") if message["content"] else []):
            logs = choice["logprobs"] and {"refusal": None, "content": [choice["logprobs"]["content"][at]]}
            yield delta(choice, {"content": word}, logprobs=logs)
        for at, call in enumerate(message.get("tool_calls") or []):
            yield delta(choice, {"tool_calls": [{"index": at, "id": call["id"], "type": "function",
                                                "function": {"name": call["function"]["name"], "arguments": ""}}]})
            arguments = call["function"]["arguments"]
            for start in range(0, len(arguments), 7):
                yield delta(choice, {"tool_calls": [
                    {"index": at, "function": {"arguments": arguments[start:start + 7]}}]})
        yield delta(choice, {}, choice["finish_reason"])
    if told:
        yield chunk([], whole["usage"])


def completion(body, ident):
    return {"id": f"cmpl-{ident}", "object": "text_completion", "created": int(time.time()), "model": body["model"],
            "choices": [{"index": 0, "text": said(body), "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}}


def completion_chunks(body, ident):
    whole = completion(body, ident)
    for word in words(whole["choices"][0]["text"]):
        yield {**whole, "usage": None, "choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}]}
    yield {**whole, "usage": None, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}


def message(body, ident):
    content = [{"type": "text", "text": said(body)}]
    stop = "end_turn"
    call = call_of_tool(body)
    if call:
        content.append({"type": "tool_use", "id": "toolu_1", "name": call[0], "input": call[1]})
        stop = "tool_use"
    return {"id": f"msg_{ident}", "type": "message", "role": "assistant", "model": body["model"], "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 21, "output_tokens": 9}}


def message_events(body, ident):
    whole = message(body, ident)
    usage = {"input_tokens": 21, "output_tokens": 1}
    yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": usage}}
    yield {"type": "ping"}
    for index, block in enumerate(whole["content"]):
        if block["type"] == "text":
            yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
            for word in words(block["text"]):
                yield {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": word}}
        else:
            yield {"type": "content_block_start", "index": index, "content_block": {**block, "input": {}}}
            given = json.dumps(block["input"])
            for start in range(0, len(given), 7):
                yield {"type": "content_block_delta", "index": index,
                       "delta": {"type": "input_json_delta", "partial_json": given[start:start + 7]}}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
           "usage": {"output_tokens": 9}}
    yield {"type": "message_stop"}


def response(body, ident):
    text = said(body)
    return {"id": f"resp_{ident}", "object": "response", "created_at": int(time.time()), "status": "completed",
            "model": body["model"], "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            "parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "store": body.get("store", True),
            "output": [{"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [
                {"type": "output_text", "text": text, "annotations": [], "logprobs": []}]}],
            "usage": {"input_tokens": 21, "output_tokens": 9, "total_tokens": 30,
                      "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}}


def response_events(body, ident):
    whole = response(body, ident)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = whole["output"][0]
    part = item["content"][0]
    about = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    events = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun},
              {"type": "response.output_item.added", "output_index": 0,
               "item": {**item, "status": "in_progress", "content": []}},
              {"type": "response.content_part.added", **about, "part": {**part, "text": ""}}]
    events += [{"type": "response.output_text.delta", **about, "delta": word, "logprobs": []}
               for word in words(part["text"])]
    events += [{"type": "response.output_text.done", **about, "text": part["text"], "logprobs": []},
               {"type": "response.content_part.done", **about, "part": part},
               {"type": "response.output_item.done", "output_index": 0, "item": item},
               {"type": "response.completed", "response": whole}]
    for at, event in enumerate(events):
        yield {**event, "sequence_number": at}


def embeddings(body, _):
    inputs = body["input"]
    if isinstance(inputs, str) or inputs and isinstance(inputs[0], int):
        inputs = [inputs]
    data = []
    for index, one in enumerate(inputs):
        vector = [float(len(one)), 0.5, -0.25]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    used = 4 * len(inputs)
    return {"object": "list", "data": data, "model": body["model"],
            "usage": {"prompt_tokens": used, "total_tokens": used}}


SPOKEN = {
    "/v1/chat/completions": (chat, chat_chunks, False),
    "/v1/completions": (completion, completion_chunks, False),
    "/v1/messages": (message, message_events, True),
    "/v1/responses": (response, response_events, True),
    "/v1/embeddings": (embeddings, None, False),
}


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, document, headers=()):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.send_header("x-request-id", "req_1")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/calls":
            with lock:
                return self.send(200, dict(calls, total=sum(calls.values())))
        if self.path == "/v1/models":
            return self.send(200, {"object": "list", "data": [
                {"id": "gpt-4o-mini", "object": "model", "created": 1, "owned_by": "nobody"}]})
        self.send(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.split("?")[0]
        with lock:
            calls[path] = calls.get(path, 0) + 1
        text = last_text(body)
        if "fails with 400" in text:
            return self.send(400, {"type": "error", "error": {
                "message": "that is wrong", "type": "invalid_request_error", "param": "messages", "code": "bad"}})
        if "fails once" in text:
            with lock:
                first = text not in failed_once
                failed_once.add(text)
            if first:
                return self.send(429, {"type": "error", "error": {"message": "slow down", "type": "rate_limit_error"}},
                                 [("retry-after", "0"), ("retry-after-ms", "1")])
        if path == "/v1/messages/count_tokens":
            return self.send(200, {"input_tokens": 21})
        if path not in SPOKEN:
            return self.send(404, {"error": {"message": "no such path", "type": "invalid_request_error"}})
        whole, events, named = SPOKEN[path]
        ident = f"{next(number):08x}"
        if "takes a while" in text:
            time.sleep(0.3)
        if not body.get("stream") or events is None:
            return self.send(200, whole(body, ident))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events(body, ident):
            name = f"event: {event['type']}\n" if named else ""
            self.chunk(f"{name}data: {json.dumps(event)}\n\n")
        if not named:
            self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    print(server.server_address[1], flush=True)
    sys.stdout.close()
    server.serve_forever()
