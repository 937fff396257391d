"""A shop as it was written years ago: Flask, requests, gunicorn. It knows nothing of a mesh.

gunicorn --config gunicorn.conf.py shop:app
"""

import os

import flask
import requests

app = flask.Flask(__name__)
session = requests.Session()
REVIEWS = os.environ.get("REVIEWS_URL", "http://reviews:9080")


@app.get("/product/<number>")
def product(number: str) -> flask.typing.ResponseReturnValue:
    user = flask.request.headers.get("x-user-id", "nobody")
    answer = session.get(f"{REVIEWS}/reviews/{number}", headers={"x-user-id": user}, timeout=5)
    answer.raise_for_status()
    return {"product": number, "reviews": answer.json()["name"]}
