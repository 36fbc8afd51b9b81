"""The server behind the page: what it may be asked, and who may ask.

Nothing is answered without the token that stands in the printed address. What writes must come from the page
itself, not from another one that is open, and is small: bodies are read to a limit and then refused.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import ImageNet3D
from ImageNet3D import CORRECTED_FIELDS, OBJECT_STATUS, Unusable, may_be_new
from processing.annotate.page import page
from processing.annotate.queue import Filter, Item, Queue
from processing.annotate.readings import Reading, Readings
from processing.drawing.mesh import MeshError
from processing.drawing.thumbnail import thumbnail
from processing.preview.meshes import embedded

MAX_BODY_BYTES = 2**16
MAX_FACES = 20_000  # of a mesh as the page holds it
_LOOKED, _NO_REASON = "looked at again", "no reason given"  # what is written where nobody says why


class Guard:
    """Refuses what has no token, comes from another page or is too large, before anything else sees it.

    Args:
        hosts: what a browser may call this server, with its port; None where any name may lead here.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: frozenset[str] | None) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102 - ASGI
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        if scope["type"] != "http" or (refusal := self._refusal(request)) is not None:
            await (refusal or PlainTextResponse("no", 403))(scope, receive, send)
            return
        body = b""
        if request.method == "POST":
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    refusal = PlainTextResponse(f"more than {MAX_BODY_BYTES} bytes", 413)
                    await refusal(scope, receive, send)
                    return

        async def read() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, read, send)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._hosts is not None and host not in self._hosts:
            names = ", ".join(sorted(self._hosts))
            text = f"this server is called {names}; through a tunnel, use the same port at both ends"
            return PlainTextResponse(text, 403)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if request.url.path == "/" and request.method == "GET":
            given = request.query_params.get("token", "")
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return PlainTextResponse("open the address that the command printed; it holds a token", 403)
        if request.method not in ("GET", "POST"):
            return PlainTextResponse("only GET and POST", 405)
        if request.method == "POST" and request.headers.get("origin") != f"http://{host}":
            return PlainTextResponse("only the page of this server may write", 403)
        return None


def new_token() -> str:
    """One that nobody can guess."""
    return secrets.token_urlsafe(24)


class Tool:
    """What the page asks for and sends.

    Args:
        review: whether the page begins with the review of two readings.
    """

    def __init__(self, queue: Queue, readings: Readings, token: str, review: bool = False) -> None:
        self._queue, self._readings, self._token, self._review = queue, readings, token, review
        self._mesh_json = functools.lru_cache(maxsize=64)(self._embedded)
        self._thumbnail = functools.lru_cache(maxsize=512)(self._drawn)

    def app(self, hosts: frozenset[str] | None) -> ASGIApp:
        """The application; see `Guard` for the hosts."""
        routes = [
            Route("/", self._page),
            Route("/api/queue", _answering(self._chosen)),
            Route("/api/object/{number:int}", _answering(self._object)),
            Route("/api/guess/{number:int}", _answering(self._guess)),
            Route("/api/picture/{number:int}", _answering(self._picture)),
            Route("/api/mesh/{category}/{index:int}", _answering(self._mesh)),
            Route("/api/thumbnail/{category}/{index:int}", _answering(self._small_picture)),
            Route("/api/save", _answering(self._save), methods=["POST"]),
            Route("/api/pairs", _answering(self._pairs)),
            Route("/api/pair/{number:int}", _answering(self._pair)),
            Route("/api/choose", _answering(self._choose), methods=["POST"]),
        ]
        return Guard(Starlette(routes=routes), self._token, hosts)

    def _refresh(self) -> None:
        """Take in what was written since, by whomever."""
        self._readings.refresh()
        self._queue.take_in(self._readings.added.copy().values())

    async def _page(self, request: Request) -> Response:
        text, policy = page(self._token, self._queue.categories, bool(self._queue.named), self._review)
        headers = {
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(text, headers=headers)

    # ---------------------------------------------------------------------------------------- the queue

    def _chosen(self, asked: Mapping[str, Any]) -> Response:
        """The numbers of the objects that a filter lets through, which of them are done, where to go on."""
        self._refresh()
        who = asked.get("who") or None
        below = asked.get("below")
        wanted = Filter(
            **{name: asked.get(name, "") for name in ("category", "split", "status", "density")},
            unposed=asked.get("unposed") == "1",
            below=float(below) if below else None,
            named=asked.get("named") == "1",
        )
        items = self._queue.chosen(wanted)
        times = [self._when_done(item, who) for item in items]
        done = [when is not None for when in times]
        _, last = max(((when, place) for place, when in enumerate(times) if when), default=(None, -1))
        undone = [place for place, is_done in enumerate(done) if not is_done]
        at = next((place for place in undone if place > last), undone[0] if undone else 0)
        return JSONResponse({"numbers": [item.number for item in items], "done": done, "at": at})

    def _when_done(self, item: Item, who: str | None) -> datetime | None:
        """When a person last said something of an object, or added it; None if never."""
        if reading := self._readings.by_object.get(item.key, {}).get(who):
            return reading.when
        adding = self._readings.added.get(item.key)
        return adding.time if adding is not None and adding.who == who else None

    def _object(self, asked: Mapping[str, Any]) -> Response:
        """All that the page shows of an object: the release's values, this person's, and where to begin."""
        item = self._item(asked["number"])
        self._refresh()
        mine = self._readings.by_object.get(item.key, {}).get(asked.get("who") or None)
        start = self._queue.start(item)
        return JSONResponse(
            {
                **self._named(item),
                "released": item.released,
                "start": start,
                "mine": None if mine is None else {**item.released, **mine.changes},
                "added": item.is_added,
                "left_out": mine is not None and mine.left_out,
                "note": "" if mine is None or mine.why in (_LOOKED, _NO_REASON) else mine.why,
            }
        )

    def _guess(self, asked: Mapping[str, Any]) -> Response:
        """Where to begin with an object that is to be added: from its box, as with those without a pose."""
        item = self._item(asked["number"])
        bbox = [float(side) for side in asked.get("bbox", "").split(",")]
        if len(bbox) != 4 or not all(math.isfinite(side) for side in bbox):
            raise HTTPException(422, "bbox is four numbers: x1,y1,x2,y2")
        return JSONResponse({"start": self._queue.guess(item.picture.category, {"bbox": bbox})})

    def _named(self, item: Item) -> dict[str, Any]:
        category = item.picture.category
        names = {"number": item.number, "image_id": item.key.image_id, "object_index": item.key.object_index}
        return {
            **names,
            "category": category,
            "split": item.picture.split,
            "models": self._queue.meshes(category),
        }

    def _item(self, number: int) -> Item:
        if not 0 <= number < len(self._queue.items):
            raise HTTPException(404, "no such object")
        return self._queue.items[number]

    # --------------------------------------------------------------------------- pictures and CAD models

    def _picture(self, asked: Mapping[str, Any]) -> Response:
        try:
            data = self._queue.picture(self._item(asked["number"]))
        except Unusable as error:
            raise HTTPException(404, ImageNet3D.REASONS[error.reason].rule) from error
        kind = ImageNet3D.read_picture_header(data).kind.lower()
        return Response(data, media_type=f"image/{kind}")

    def _mesh(self, asked: Mapping[str, Any]) -> Response:
        return Response(self._mesh_json(asked["category"], asked["index"]), media_type="application/json")

    def _embedded(self, category: str, index: int) -> str:
        mesh = self._model(category, index)
        return json.dumps(embedded(mesh, MAX_FACES)._asdict())

    def _small_picture(self, asked: Mapping[str, Any]) -> Response:
        return Response(self._thumbnail(asked["category"], asked["index"]), media_type="image/png")

    def _drawn(self, category: str, index: int) -> bytes:
        try:
            return thumbnail(self._model(category, index), f"{category} {index}")
        except MeshError as error:
            raise HTTPException(404, str(error)) from error

    def _model(self, category: str, index: int) -> Any:
        mesh = self._queue.mesh(category, index) if index in self._queue.meshes(category) else None
        if mesh is None:
            raise HTTPException(404, "no such CAD model")
        return mesh

    # ---------------------------------------------------------------------------------------- saving

    def _save(self, asked: Mapping[str, Any]) -> Response:
        """Write a reading as one line, which is on the disk before the answer goes out."""
        item = self._asked_item(asked)
        operation = asked.get("operation", "set")
        said = self._line(item, operation, asked.get("who"), asked.get("note"))
        if operation == "set":
            return self._append_pose(item, said, _checked(asked.get("values")))
        if operation == "add":
            del said["object_index"]
            said["new"] = {name: v for name, v in _checked(asked.get("values")).items() if v is not None}
            return self._append(said, num_objects=self._num_objects(item))
        if operation not in ("leave_out", "take_back"):
            raise HTTPException(422, "operation is none of set, add, leave_out, take_back")
        return self._append(said)

    def _num_objects(self, item: Item) -> int:
        if (count := self._queue.num_objects(item.picture)) is None:
            why = (
                "it is not known how many objects the picture has, of which those that are no rows count too"
            )
            raise HTTPException(422, f"{why}; annotate the raw release, or build the config classification")
        return count

    def _asked_item(self, asked: Mapping[str, Any]) -> Item:
        """The object, named in both ways, so that a page of yesterday's queue corrects no other object."""
        number = asked.get("number")
        item = self._item(number if type(number) is int else -1)
        if (asked.get("image_id"), asked.get("object_index")) != tuple(item.key):
            raise HTTPException(409, "the queue is another one now; load the page again")
        return item

    def _line(self, item: Item, operation: str, who: Any, note: Any) -> dict[str, Any]:
        why = " ".join(note.split()) if type(note) is str else note
        key = {"image_id": item.key.image_id, "object_index": item.key.object_index}
        return {
            "operation": operation,
            **key,
            "who": who or None,
            "why": why or (_LOOKED if operation == "set" else _NO_REASON),
        }

    def _append_pose(self, item: Item, said: dict[str, Any], values: Mapping[str, Any]) -> Response:
        """Write a reading that wins as a whole, so that nothing of an earlier one shines through.

        It names status, density, what differs from the release and what anybody changed; where somebody else
        left the object out, it is taken back, too.
        """
        self._refresh()
        always = {"object_status", "dense"} | self._readings.touched(item.key)
        new = {n: values[n] for n in CORRECTED_FIELDS if n in always or values[n] != item.released[n]}
        for name, value in list(new.items()):
            if value == item.released[name] and not may_be_new(name, value):
                new[name] = _as_new(name, value)
        set_ = {**said, "old": {name: item.released[name] for name in new}, "new": new}
        readings = self._readings.by_object.get(item.key, {}).values()
        meant = not said.get("reviewed") and any(r.left_out and r.who == said["who"] for r in readings)
        if item.key in self._readings.left_out and not meant:
            return self._append({**said, "operation": "take_back"}, set_)
        return self._append(set_)

    def _append(self, *said: dict[str, Any], num_objects: int = 0) -> Response:
        try:
            written = self._readings.append(*said, num_objects=num_objects)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        except OSError as error:
            raise HTTPException(507, f"not saved: {error.strerror}: {self._readings.path}") from error
        self._queue.take_in(self._readings.added.copy().values())
        return JSONResponse({"saved": json.loads(written.to_json())})

    # ---------------------------------------------------------------------------------------- review

    def _pairs(self, asked: Mapping[str, Any]) -> Response:
        """The objects with two readings that nobody has held side by side since the later of them."""
        self._refresh()
        numbers = [item.number for item in self._queue.items if self._is_open(item)]
        return JSONResponse({"numbers": numbers})

    def _is_open(self, item: Item) -> bool:
        pair = self._two(item)
        chosen = self._readings.chosen.get(item.key)
        return bool(pair) and (chosen is None or chosen < max(r.when for r in pair))

    def _two(self, item: Item) -> list[Reading]:
        """The two latest readings by different people, in an order that tells nothing of them; else none."""
        readings = sorted(self._readings.by_object.get(item.key, {}).values(), key=lambda r: r.when)[-2:]
        if len(readings) < 2:
            return []
        text = f"{self._token} {[asdict(r) for r in readings]}"
        swapped = hashlib.blake2b(text.encode(), digest_size=1).digest()[0] % 2
        return readings[::-1] if swapped else readings

    def _pair(self, asked: Mapping[str, Any]) -> Response:
        """Two readings side by side, without names and times."""
        item = self._item(asked["number"])
        self._refresh()
        if not (pair := self._two(item)):
            raise HTTPException(404, "there are no two readings of it")
        shown = [{"values": {**item.released, **r.changes}, "left_out": r.left_out} for r in pair]
        return JSONResponse({**self._named(item), "readings": shown, "pair": _name_of(pair)})

    def _choose(self, asked: Mapping[str, Any]) -> Response:
        """Write the better of two readings once more, as reviewed; it is the later one now, and wins."""
        item = self._asked_item(asked)
        self._refresh()
        pair, choice = self._two(item), asked.get("choice")
        if not pair or asked.get("pair") != _name_of(pair):
            raise HTTPException(409, "there is a newer reading; look again")
        if type(choice) is not int or choice not in (0, 1):
            raise HTTPException(422, "choice is 0 or 1")
        better = pair[choice]
        operation = "leave_out" if better.left_out else "set"
        said = self._line(item, operation, asked.get("who"), asked.get("note")) | {"reviewed": True}
        if better.left_out:
            return self._append(said)
        return self._append_pose(item, said, {**item.released, **better.changes})


def _checked(values: Any) -> dict[str, Any]:
    """What a person says of an object: all fields, with the status and density that saving needs."""
    if type(values) is not dict or values.keys() != set(CORRECTED_FIELDS):
        raise HTTPException(422, f"values are of the fields {', '.join(CORRECTED_FIELDS)}")
    if values["object_status"] not in OBJECT_STATUS or type(values["dense"]) is not bool:
        raise HTTPException(422, "choose a status and a density first")
    return values


def _as_new(name: str, value: Any) -> Any:
    """A value of the release that a correction may not give, as one that means the same."""
    if name in ImageNet3D.ANGLES:
        return math.remainder(value, 2 * math.pi)
    if name == "bbox":  # turned round
        (x1, x2), (y1, y2) = sorted(value[::2]), sorted(value[1::2])
        return [x1, y1, x2, y2]
    return None  # of distance, viewport and CAD model what is not above 0 says that there is none


def _name_of(pair: list[Reading]) -> str:
    """What tells two readings from later ones of the same object, and tells nothing of them."""
    return hashlib.blake2b(repr(pair).encode(), digest_size=12).hexdigest()


def _answering(answer: Callable[[Mapping[str, Any]], Response]) -> Callable[[Request], Any]:
    """An endpoint: what is asked, by path, query or a body of JSON, goes to `answer` in a thread."""

    async def endpoint(request: Request) -> Response:
        asked: dict[str, Any] = {**request.query_params, **request.path_params}
        if request.method == "POST":
            try:
                body = json.loads(await request.body())
            except (ValueError, RecursionError) as error:
                raise HTTPException(400, "not JSON") from error
            if type(body) is not dict:
                raise HTTPException(400, "not a JSON object")
            asked = body
        try:
            response = await run_in_threadpool(answer, asked)
        except ValueError as error:
            raise HTTPException(400, str(error)[:500]) from error
        response.headers["Cache-Control"] = (
            "private, max-age=3600" if "image" in response.headers.get("content-type", "") else "no-store"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return endpoint
