"""What tenants do with both SDKs, streamed and not: one reads its answers to their
ends, fifty clients of the other leave. Prints the ids that the answers came with."""

import os
import random
import threading

import anthropic
import openai

BASE = os.environ["WEIR_BASE_URL"]
ACME = os.environ["WEIR_ENTERPRISE_KEY"]
SOLO = os.environ["WEIR_STARTER_KEY"]
ID = "x-weir-request-id"


def openai_client(key):
    return openai.OpenAI(base_url=BASE, api_key=key, max_retries=0)


def anthropic_client(key):
    return anthropic.Anthropic(
        base_url=BASE.removesuffix("/v1"), api_key=key, max_retries=0
    )


def ask(words):
    return [{"role": "user", "content": f"Tell of {words} things, naïvely."}]


def whole(api, claude):
    """Every kind of answer, to its end; the ids."""
    chats = api.chat.completions.with_raw_response
    messages = claude.messages.with_raw_response
    user = {"user": "acme"}
    # The providers' answers are long and slow for those that leave.
    short = {"max_tokens": 40}
    metadata = {"metadata": {"user_id": "acme"}, "max_tokens": 64}
    for n, model in enumerate(["gpt-4o", "gpt-4o-mini", "claude-haiku-4-5"]):
        yield chats.create(model=model, messages=ask(n), **short, **user)
        for options in [{}, {"stream_options": {"include_usage": True}}]:
            stream = chats.create(
                model=model, messages=ask(n), stream=True, **options, **short, **user
            )
            for _ in stream.parse():
                pass
            yield stream
        yield messages.create(model=model, messages=ask(n), **metadata)
        stream = messages.create(model=model, messages=ask(n), stream=True, **metadata)
        for _ in stream.parse():
            pass
        yield stream
    yield api.responses.with_raw_response.create(model="gpt-4o", input="one", **user)
    stream = api.responses.with_raw_response.create(
        model="gpt-4o", input="two", stream=True, **user
    )
    for _ in stream.parse():
        pass
    yield stream
    yield api.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=["one", "two words"], **user
    )
    yield api.models.with_raw_response.list()


ids = [answer.headers[ID] for answer in whole(openai_client(ACME), anthropic_client(ACME))]
assert len(set(ids)) == len(ids) == 19, ids


# Shared, because to make one takes longer than an answer does.
api, claude = openai_client(SOLO), anthropic_client(SOLO)
failed = []


def leave(n):
    """Begins a stream or an answer and goes away in the middle."""
    text = ask(f"{n} {'many ' * (n % 7)}")
    try:
        if n % 5 == 4:
            # No stream: it gives up before the answer comes.
            api.with_options(timeout=3).responses.create(
                model="gpt-4o-mini", input=text[0]["content"], user="solo"
            )
            failed.append(f"{n} was answered in time")
            return
        if n % 2:
            stream = claude.messages.create(
                model="claude-haiku-4-5",
                messages=text,
                max_tokens=600,
                stream=True,
                metadata={"user_id": "solo"},
            )
        else:
            stream = api.chat.completions.create(
                model="gpt-4o-mini", messages=text, stream=True, user="solo"
            )
    except openai.APITimeoutError:
        return
    for _, _ in zip(range(random.randrange(1, 6)), stream):
        pass
    stream.close()


# Ten at a time: each is to be served before it loses its patience.
for first in range(0, 50, 10):
    threads = [
        threading.Thread(target=leave, args=(n,)) for n in range(first, first + 10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
assert not failed, failed
print("\n".join(ids))
