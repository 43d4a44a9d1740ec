"""What a tenant does with the OpenAI SDK that it already has."""

import os

import openai


def client(key):
    return openai.OpenAI(
        base_url=os.environ["WEIR_BASE_URL"], api_key=key, max_retries=0
    )


def exercise(api, tenant, model):
    ask = [{"role": "user", "content": f"Tell {tenant} of the river, naïvely."}]

    whole = api.chat.completions.create(model=model, messages=ask, user=tenant)
    assert whole.choices[0].message.content
    assert whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0
    # The id that a tenant can quote.
    assert len(whole._request_id) == 36, whole._request_id

    text = ""
    for chunk in api.chat.completions.create(
        model=model, messages=ask, user=tenant, stream=True
    ):
        # Nobody asked for the usage chunk, so nobody sees it.
        assert chunk.choices and chunk.usage is None, chunk
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content

    chunks = list(
        api.chat.completions.create(
            model=model,
            messages=ask,
            user=tenant,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].usage == whole.usage, chunks[-1]

    vectors = api.embeddings.create(
        model="text-embedding-3-small", input=["one", "two words"], user=tenant
    )
    assert len(vectors.data) == 2 and len(vectors.data[0].embedding) == 1536
    return [m.id for m in api.models.list()]


starter = client(os.environ["WEIR_STARTER_KEY"])
enterprise = client(os.environ["WEIR_ENTERPRISE_KEY"])

assert exercise(enterprise, "acme", "gpt-4o") == [
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-4-5",
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "mistral-7b",
]
assert exercise(starter, "solo", "gpt-4o-mini") == [
    "claude-haiku-4-5",
    "gpt-4o-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
]

# Errors arrive as the SDK's own exceptions, with the words of the error.
for api, model, error, words in [
    (starter, "gpt-4o", openai.PermissionDeniedError, "it has claude-haiku-4-5, gpt-4o-mini"),
    (starter, "gpt-9", openai.NotFoundError, "gpt-9"),
    (client("wrong"), "gpt-4o-mini", openai.AuthenticationError, "API key"),
]:
    try:
        api.chat.completions.create(model=model, messages=[])
        raise SystemExit(f"{model} was served")
    except error as e:
        assert words in e.message, e.message
        assert e.body["type"] == "invalid_request_error", e.body
