"""Each SDK against each model: the dialect that comes back is the one that was
spoken, whoever served. What a plan has not is refused in that dialect's words."""

import base64
import json
import os
import struct
import sys
import zlib

import anthropic
import openai

BASE = os.environ["WEIR_BASE_URL"]
ENTERPRISE = os.environ["WEIR_ENTERPRISE_KEY"]
STARTER = os.environ["WEIR_STARTER_KEY"]


def openai_client(key):
    return openai.OpenAI(base_url=BASE, api_key=key, max_retries=0)


def anthropic_client(key):
    return anthropic.Anthropic(
        base_url=BASE.removesuffix("/v1"), api_key=key, max_retries=0
    )


TENANT = "acme"


def chat(api, **ask):
    return api.chat.completions.create(user=TENANT, **ask)


def message(api, **ask):
    return api.messages.create(metadata={"user_id": TENANT}, **ask)


def png():
    """A red dot."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b"\x00\xff\x00\x00"))
        + chunk(b"IEND", b"")
    )


IMAGE = base64.b64encode(png()).decode()
SCHEMA = {
    "type": "object",
    "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["place", "days"],
}


def openai_text(api, model):
    ask = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Naïve question for {model}"},
    ]
    raw = chat(
        api.with_raw_response,
        model=model, messages=ask, max_tokens=200
    )
    assert raw.headers["x-weir-model"] == model, raw.headers
    whole = raw.parse()
    assert whole.object == "chat.completion"
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0
    text = ""
    last = None
    for chunk in chat(
        api,
        model=model,
        messages=ask,
        max_tokens=200,
        stream=True,
        stream_options={"include_usage": True},
    ):
        assert chunk.object == "chat.completion.chunk"
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
        last = chunk
    assert text == whole.choices[0].message.content, (text, whole)
    assert last.usage.prompt_tokens == whole.usage.prompt_tokens, last
    assert last.usage.completion_tokens == whole.usage.completion_tokens, last
    short = chat(api, model=model, messages=ask, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens == 3


def openai_tools(api, model):
    tools = [
        {
            "type": "function",
            "function": {"name": "weather", "parameters": SCHEMA},
        }
    ]
    ask = [{"role": "user", "content": "Use two tools, please"}]
    whole = chat(
        api,
        model=model, messages=ask, tools=tools, max_tokens=500
    )
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == "tool_calls", whole
    for call in message.tool_calls:
        assert set(json.loads(call.function.arguments)) == {"place", "days"}
    calls = {}
    for chunk in chat(
        api,
        model=model, messages=ask, tools=tools, max_tokens=500, stream=True
    ):
        for piece in chunk.choices[0].delta.tool_calls or []:
            call = calls.setdefault(piece.index, {"name": "", "arguments": ""})
            call["name"] += piece.function.name or ""
            call["arguments"] += piece.function.arguments or ""
    found = [(c["name"], json.loads(c["arguments"])) for c in calls.values()]
    expected = [
        (c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls
    ]
    assert found == expected, (found, expected)
    # What the tools gave goes back, and the model goes on.
    results = [
        {"role": "tool", "tool_call_id": c.id, "content": "12 degrees"}
        for c in message.tool_calls
    ]
    turn = [*ask, message.model_dump(exclude_none=True), *results]
    after = chat(
        api,
        model=model, messages=turn, tools=tools, max_tokens=500
    )
    assert after.choices[0].message.content, after


def openai_image(api, model):
    url = f"data:image/png;base64,{IMAGE}"
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    ask = [{"role": "user", "content": parts}]
    whole = chat(api, model=model, messages=ask, max_tokens=200)
    assert whole.choices[0].message.content


def openai_json(api, model):
    answer = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    ask = [{"role": "user", "content": "As json, where?"}]
    whole = chat(
        api,
        model=model, messages=ask, max_tokens=500, response_format=answer
    )
    assert set(json.loads(whole.choices[0].message.content)) == {"place", "days"}, whole
    assert whole.choices[0].finish_reason == "stop", whole


def anthropic_text(api, model):
    ask = {
        "model": model,
        "max_tokens": 200,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": f"Naïve question for {model}"}],
    }
    whole = message(api, **ask)
    assert whole.type == "message" and whole.stop_reason == "end_turn", whole
    assert whole.usage.input_tokens > 0 and whole.usage.output_tokens > 0
    assert len(whole._request_id) == 36, whole._request_id
    with api.messages.stream(**ask, metadata={"user_id": TENANT}) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens, final
    assert final.usage.input_tokens == whole.usage.input_tokens, final
    assert final.stop_reason == "end_turn"
    short = message(api, **{**ask, "max_tokens": 3})
    assert short.stop_reason == "max_tokens" and short.usage.output_tokens == 3


def anthropic_tools(api, model):
    tools = [{"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}]
    ask = {
        "model": model,
        "max_tokens": 500,
        "tools": tools,
        "messages": [{"role": "user", "content": "Use two tools, please"}],
    }
    whole = message(api, **ask)
    assert whole.stop_reason == "tool_use", whole
    uses = [b for b in whole.content if b.type == "tool_use"]
    assert uses and all(set(b.input) == {"place", "days"} for b in uses), uses
    with api.messages.stream(**ask, metadata={"user_id": TENANT}) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    streamed = [(b.name, b.input) for b in final.content if b.type == "tool_use"]
    assert streamed == [(b.name, b.input) for b in uses], (streamed, uses)
    results = [
        {"type": "tool_result", "tool_use_id": b.id, "content": "12 degrees"}
        for b in uses
    ]
    turn = [
        *ask["messages"],
        {"role": "assistant", "content": whole.model_dump(exclude_none=True)["content"]},
        {"role": "user", "content": [*results, {"type": "text", "text": "So?"}]},
    ]
    for said in turn:
        if isinstance(said["content"], list):
            for block in said["content"]:
                # The SDK's own addition to what it was given.
                block.pop("caller", None)
                block.pop("citations", None)
    after = message(api, **{**ask, "messages": turn})
    assert after.content[0].text, after


def anthropic_image(api, model):
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    parts = [
        {"type": "image", "source": source},
        {"type": "text", "text": "What is it?"},
    ]
    whole = message(
        api,
        model=model, max_tokens=200, messages=[{"role": "user", "content": parts}]
    )
    assert whole.content[0].text


def refused(error, words, kind, call):
    try:
        call()
    except error as e:
        assert words in e.message or words in str(e.body), (e.message, e.body)
        found = e.body["error"]["type"] if "error" in e.body else e.body["type"]
        assert found == kind, e.body
        return e
    raise SystemExit(f"{words}: was served")


def main():
    oai, ant = openai_client(ENTERPRISE), anthropic_client(ENTERPRISE)
    claude = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5"]
    gpt = ["gpt-4o", "gpt-4o-mini"]
    own = ["mistral-7b"]
    for model in claude + gpt + own:
        openai_text(oai, model)
        openai_tools(oai, model)
        openai_json(oai, model)
        anthropic_text(ant, model)
        anthropic_tools(ant, model)
    for model in claude + gpt:
        openai_image(oai, model)
        anthropic_image(ant, model)

    # Calls that one dialect alone has.
    count = ant.messages.count_tokens(
        model=claude[0], messages=[{"role": "user", "content": "Hello there"}]
    )
    assert count.input_tokens > 0
    for model in gpt:
        whole = oai.responses.create(user=TENANT, model=model, input="Hello", max_output_tokens=50)
        assert whole.output_text and whole.usage.output_tokens > 0
        events = list(oai.responses.create(user=TENANT, model=model, input="Hello", stream=True))
        assert events[-1].type == "response.completed", events[-1]
    text = oai.completions.create(user=TENANT, model=own[0], prompt="The river", max_tokens=20)
    assert text.choices[0].text and text.usage.completion_tokens > 0
    text = ""
    for chunk in oai.completions.create(
        user=TENANT, model=own[0], prompt="The river", max_tokens=20, stream=True
    ):
        text += chunk.choices[0].text
    assert text
    assert len(oai.embeddings.create(user=TENANT, model="text-embedding-3-large", input="a").data) == 1
    ids = [m.id for m in oai.models.list()]
    assert ids == [m.id for m in ant.models.list()], ids
    assert set(claude + gpt + own) < set(ids)

    # What has no counterpart is refused, and named.
    ask = {"messages": [{"role": "user", "content": "x"}], "model": claude[0]}
    for extra in [{"n": 2}, {"logprobs": True}, {"seed": 1}, {"logit_bias": {"1": 1}}]:
        e = refused(
            openai.BadRequestError,
            next(iter(extra)),
            "invalid_request_error",
            lambda extra=extra: chat(oai, **ask, **extra),
        )
        assert e.body["param"] == next(iter(extra)), e.body
    refused(
        anthropic.BadRequestError,
        "top_k",
        "invalid_request_error",
        lambda: message(
            ant,
            model="gpt-4o",
            max_tokens=9,
            messages=ask["messages"],
            extra_body={"top_k": 3},
        ),
    )

    # A starter asks for more than it has, in both dialects.
    for model, api, error, kind in [
        ("claude-opus-5-5", openai_client(STARTER), openai.PermissionDeniedError, None),
        ("gpt-4o", anthropic_client(STARTER), anthropic.PermissionDeniedError, 1),
    ]:
        if kind is None:
            call = lambda api=api, model=model: chat(
        api,
                model=model, max_tokens=5000, messages=ask["messages"]
            )
            kind = "invalid_request_error"
        else:
            call = lambda api=api, model=model: message(
        api,
                model=model, max_tokens=5000, messages=ask["messages"]
            )
            kind = "permission_error"
        refused(error, "it has claude-haiku-4-5, gpt-4o-mini", kind, call)
    raw = openai_client(STARTER).chat.completions.with_raw_response.create(
        user="solo",
        model="gpt-4o-mini", max_tokens=5000, messages=ask["messages"]
    )
    assert raw.headers["x-weir-max-tokens"] == "1024", raw.headers
    raw = anthropic_client(STARTER).messages.with_raw_response.create(
        metadata={"user_id": "solo"},
        model="gpt-4o-mini", max_tokens=5000, messages=ask["messages"]
    )
    assert raw.headers["x-weir-max-tokens"] == "1024", raw.headers
    refused(
        anthropic.AuthenticationError,
        "API key",
        "authentication_error",
        lambda: message(
            anthropic_client("wrong"),
            model="gpt-4o", max_tokens=9, messages=ask["messages"]
        ),
    )


main()
sys.exit(0)
