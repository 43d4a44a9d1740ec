"""Asks faster than the limit allows; OpenAI's SDK waits as it is told and asks again."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ["WEIR_BASE_URL"],
    api_key=os.environ["WEIR_STARTER_KEY"],
    max_retries=8,
)
for n in range(12):
    client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": f"hello {n}"}]
    )
print("all 12 answered")
