"use strict";
/* The queue, saving, the review of two readings, and the keys. */

const editor = new Editor();
const queue = { numbers: [], done: [], at: 0, who: null };
let steps = 0; // of going through the queue: an answer that comes after the next step is dropped
let loads = 0; // of the queue, likewise
const who = () => byId("who").value.trim();

// ------------------------------------------------------------------------------------------ the queue

const FILTERS = ["category", "split", "status", "density", "below"];

/** The queue as the filters have it; on from where one stopped, or at the object of a number. */
async function loadQueue(number = null) {
  const query = Object.fromEntries(FILTERS.map((name) => [name, byId(`filter-${name}`).value]));
  for (const name of ["unposed", "named"]) query[name] = byId(`filter-${name}`)?.checked ? "1" : "";
  if (query.below) say("Measuring how far boxes and meshes agree …");
  const name = who();
  const load = ++loads;
  const found = await get("/api/queue", { ...query, who: name });
  if (load !== loads) return;
  Object.assign(queue, found, { who: name });
  const place = queue.numbers.indexOf(number);
  await go(place < 0 ? queue.at : place);
}

async function go(at) {
  const step = ++steps;
  editor.keepDraft();
  showProgress();
  byId("nothing").hidden = queue.numbers.length > 0;
  byId("work").hidden = queue.numbers.length === 0;
  if (!queue.numbers.length) {
    editor.object = null;
    return say("No object is selected");
  }
  queue.at = Math.min(Math.max(at, 0), queue.numbers.length - 1);
  const object = await get(`/api/object/${queue.numbers[queue.at]}`, { who: who() });
  if (step !== steps) return undefined;
  byId("split").textContent = object.split;
  showProgress();
  say("");
  return open(object);
}

function open(object) {
  byId("object").textContent = `${object.image_id} · ${object.isNew ? "a new object" : `object ${object.object_index}`}`;
  return editor.open({ isNew: false, ...object });
}

/** Begin with an object that is to be added to the picture, or go back from it; what was drawn stays. */
async function toggleNew() {
  if (editor.object.isNew) return go(queue.at);
  editor.keepDraft();
  const { number, image_id, object_index, category, models } = editor.object; // of the one it is added beside
  await open({ isNew: true, number, image_id, object_index, category, models, start: null, mine: null, released: NOTHING, note: "" });
  if (!editor.isDrawing) return undefined;
  byId("x1").focus({ preventScroll: true });
  return say(WHAT_TO_DRAW);
}

function leaveOut() {
  const { object } = editor;
  if (!object.isNew) return save(object.left_out ? "take_back" : "leave_out");
  editor.drafts.delete(keyOf(object));
  editor.object = null;
  return go(queue.at);
}

function showProgress() {
  const done = queue.done.filter(Boolean).length;
  byId("progress").max = Math.max(queue.done.length, 1);
  byId("progress").value = done;
  byId("counts").textContent = `${(queue.at + 1).toLocaleString("en")} of ${queue.numbers.length.toLocaleString("en")}, ${done.toLocaleString("en")} done`;
}

/** The next object that this person has not done, from the present one on and round. */
function nextUndone() {
  const { length } = queue.done;
  for (let by = 1; by <= length; by++) {
    const place = (queue.at + by) % length;
    if (!queue.done[place]) return go(place);
  }
  return say("All of these are done");
}

// ------------------------------------------------------------------------------------------- saving

async function save(operation = editor.object?.isNew ? "add" : "set") {
  const { object, values, drafts } = editor;
  if (!object) return;
  if (byId("save").disabled) {
    say("The save before is not done yet; wait for it", true);
    return;
  }
  if (editor.isDrawing) {
    say(WHAT_TO_DRAW, true);
    return;
  }
  const hasValues = operation === "set" || operation === "add";
  if (hasValues && (values.object_status === null || values.dense === null)) {
    say("Choose a status and a density first", true);
    (document.querySelector(values.object_status === null ? "[name=status]" : "[name=dense]")).focus();
    return;
  }
  if (hasValues && !editor.stage.picture) {
    say("Not saved: the picture is not there to be looked at", true);
    return;
  }
  const { number, image_id, object_index } = object;
  const note = byId("note").value;
  const body = { number, image_id, object_index, operation, who: who(), note };
  const isWithoutGuess = hasValues && editor.guesses.length > 0;
  if (hasValues) {
    body.values = editor.said;
    editor.saved = null; // until the answer comes
  }
  const step = steps;
  byId("save").disabled = true;
  byId("work").inert = operation === "add"; // which becomes another object by the answer
  let saved;
  try {
    ({ saved } = await post("/api/save", body));
  } catch (error) {
    say(`Not saved: ${error.message}`, true);
    return;
  } finally {
    byId("save").disabled = false;
    if (byId("work").inert) {
      byId("work").inert = false;
      byId("stage").focus({ preventScroll: true });
    }
  }
  let isSettled = true;
  if (hasValues) {
    isSettled = editor.settle(drafts, object, values, note);
  } else if (editor.object === object) {
    Object.assign(object, { left_out: operation === "leave_out", note });
    editor.keepDraft(); // it is there again once the object is taken back
    editor.object = null;
  }
  if (operation === "add") {
    await loadQueue(number); // the new one stands behind those of its picture
    say(`Added ${image_id}, object ${saved.object_index}${isWithoutGuess ? ", without the guess" : ""}`);
    return;
  }
  const place = queue.numbers.indexOf(number);
  if (place >= 0 && queue.who === body.who) queue.done[place] = true;
  if (isSettled && steps === step && byId("advance").checked) {
    await nextUndone();
  } else {
    showProgress();
  }
  if (editor.object === null) await go(queue.at);
  const left = !isSettled ? "; what you changed since then is not" : isWithoutGuess ? ", without the guess" : "";
  say(`Saved ${image_id}, object ${object_index}${left}`);
}

// ------------------------------------------------------------------------------------------- review

const sides = [...document.querySelectorAll("#review .stage")].map((element) => new Stage(element));
const reviewing = { numbers: [], pair: null, isBusy: false };

async function showReview(isShown) {
  editor.keepDraft();
  byId("edit").hidden = isShown;
  byId("review").hidden = !isShown;
  byId("to-review").setAttribute("aria-pressed", String(isShown));
  if (!isShown) return loadQueue();
  reviewing.numbers = (await get("/api/pairs")).numbers;
  return nextPair();
}

async function nextPair() {
  const number = reviewing.numbers.shift();
  byId("pair").hidden = number === undefined;
  byId("no-pairs").hidden = number !== undefined;
  byId("pairs-left").textContent = number === undefined ? "" : `${reviewing.numbers.length + 1} to review`;
  reviewing.pair = null;
  for (const [place, side] of sides.entries()) {
    side.show(null, null, null);
    side.element.setAttribute("aria-label", `${["Left", "Right"][place]} reading`);
    byId(`words-${place}`).textContent = "";
  }
  say("");
  if (number === undefined) return;
  const pair = await get(`/api/pair/${number}`);
  byId("pair-object").textContent = `${pair.image_id} · object ${pair.object_index}`;
  const picture = await pictureOf(number);
  for (const [side, reading] of pair.readings.entries()) {
    const { values } = reading;
    sides[side].show(picture, values, await modelOf(pair.category, values.cad_index));
    const words = reading.left_out ? "leaves the object out" : wordsOf(values);
    sides[side].element.setAttribute("aria-label", `${["Left", "Right"][side]} reading of ${pair.image_id}: ${words}`);
    byId(`words-${side}`).textContent = words;
  }
  reviewing.pair = pair;
}

function wordsOf({ distance, cad_index: model, object_status: status, dense, ...values }) {
  const degrees = (angle) => (angle === null ? "none" : `${Math.round(shownDegrees(angle))}°`);
  return [
    ...ANGLES.map((name) => `${name} ${degrees(values[name])}`),
    `distance ${distance === null ? "none" : distance.toFixed(2)}`,
    `CAD model ${model ?? "none"}`,
    status ?? "status none",
    dense === null ? "density none" : dense ? "dense" : "not dense",
  ].join(", ");
}

/** A step of the review, dropped while the one before is under way: nobody has seen the pair that it would be of. */
const reviewStep = (action) => async () => {
  if (reviewing.isBusy) return;
  reviewing.isBusy = true;
  try {
    await action();
  } finally {
    reviewing.isBusy = false;
  }
};

async function choose(choice) {
  const { pair } = reviewing;
  if (!pair) return;
  const { number, image_id, object_index } = pair;
  try {
    await post("/api/choose", { number, image_id, object_index, pair: pair.pair, choice, who: who() });
  } catch (error) {
    say(`Not saved: ${error.message}`, true);
    return;
  }
  await nextPair();
  say(`Saved: the ${["left", "right"][choice]} reading of ${image_id}, object ${object_index}`);
}

// --------------------------------------------------------------------------------------------- keys

const ONE = radians(1);
const LARGE = radians(30);
/* Key -> what it does; a capital letter is the same with shift, and the larger step. */
const KEYS = {
  ArrowLeft: () => editor.step("azimuth", -ONE), ArrowRight: () => editor.step("azimuth", ONE),
  ArrowUp: () => editor.step("elevation", ONE), ArrowDown: () => editor.step("elevation", -ONE),
  "shift ArrowLeft": () => editor.step("azimuth", -LARGE), "shift ArrowRight": () => editor.step("azimuth", LARGE),
  "shift ArrowUp": () => editor.step("elevation", LARGE), "shift ArrowDown": () => editor.step("elevation", -LARGE),
  q: () => editor.step("theta", ONE), e: () => editor.step("theta", -ONE),
  Q: () => editor.step("theta", LARGE), E: () => editor.step("theta", -LARGE),
  w: () => editor.step("distance", -0.2), s: () => editor.step("distance", 0.2),
  W: () => editor.step("distance", -1), S: () => editor.step("distance", 1),
  j: () => editor.step("px", -5), l: () => editor.step("px", 5), i: () => editor.step("py", -5), k: () => editor.step("py", 5),
  J: () => editor.step("px", -30), L: () => editor.step("px", 30), I: () => editor.step("py", -30), K: () => editor.step("py", 30),
  c: () => editor.nextModel(1), C: () => editor.nextModel(-1), g: () => editor.takeGuess(),
  ...Object.fromEntries(STATUSES.map((status, i) => [i + 1, () => editor.change({ object_status: status })])),
  5: () => editor.change({ dense: true }), 6: () => editor.change({ dense: false }),
  n: () => go(queue.at + 1), p: () => go(queue.at - 1), u: () => nextUndone(),
  d: () => toggleNew(), x: () => leaveOut(), Escape: () => (editor.isDrawing ? toggleNew() : undefined),
  Enter: () => save(), r: () => editor.reset(), v: () => editor.toggleBefore(), z: () => closeUp(),
  b: () => toggleLayer("box"), f: () => toggleLayer("faces"), o: () => toggleLayer("outline"), a: () => toggleLayer("axes"),
  t: () => byId("note").focus(),
  "ctrl z": () => editor.undo(-1), "ctrl y": () => editor.undo(1), "ctrl Z": () => editor.undo(1),
};
const REVIEW_KEYS = { 1: reviewStep(() => choose(0)), 2: reviewStep(() => choose(1)), n: reviewStep(nextPair) };
const ONCE = ["Enter", "x", "n", "p", "u"]; // not again while the key is held: they write, or show another object

function toggleLayer(name) {
  const box = byId(`layer-${name}`);
  box.checked = !box.checked;
  box.dispatchEvent(new Event("change"));
}

function closeUp() {
  editor.stage.closeUp = !editor.stage.closeUp;
  byId("close-up").setAttribute("aria-pressed", String(editor.stage.closeUp));
  editor.stage.layOut();
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.altKey || event.metaKey) return;
  const writes = target.matches("select, textarea, input:not([type=checkbox], [type=radio], [type=range])");
  if (key === "Escape" && target.matches("input, select")) {
    byId("stage").focus();
    return;
  }
  if (writes) return;
  const keys = byId("review").hidden ? KEYS : REVIEW_KEYS;
  if (byId("work").inert) return;
  if (event.repeat && (ONCE.includes(key) || (keys === REVIEW_KEYS && key in keys))) {
    event.preventDefault();
    return;
  }
  const steers = target.matches("input") && key.startsWith("Arrow"); // sliders and radio buttons have their own
  const presses = target.matches("button, summary, a") && (key === "Enter" || key === " ");
  if (steers || presses) return;
  const name = event.ctrlKey ? `ctrl ${key}` : event.shiftKey && key.startsWith("Arrow") ? `shift ${key}` : key;
  const action = keys[name];
  if (!action || (keys === KEYS && !editor.object)) return;
  event.preventDefault();
  told(action)();
});

const TO_OBJECT = { // buttons, which do nothing while no object is there
  save: () => save(), undo: () => editor.undo(-1), redo: () => editor.undo(1), reset: () => editor.reset(),
  before: () => editor.toggleBefore(), "take-guess": () => editor.takeGuess(),
  add: () => toggleNew(), "leave-out": () => leaveOut(),
};
const BUTTONS = {
  "close-up": () => closeUp(),
  previous: () => go(queue.at - 1), next: () => go(queue.at + 1), undone: () => nextUndone(),
  "to-review": () => showReview(byId("review").hidden),
  left: REVIEW_KEYS[1], right: REVIEW_KEYS[2], skip: REVIEW_KEYS.n,
};
const WRITES = ["save", "leave-out", "left", "right"];
for (const [id, action] of Object.entries({ ...TO_OBJECT, ...BUTTONS })) {
  const handler = told(action);
  byId(id).addEventListener("click", ({ detail }) => {
    if (id in TO_OBJECT && !editor.object) return undefined;
    return detail > 1 && WRITES.includes(id) ? undefined : handler(); // a double click writes once
  });
}
for (const element of document.querySelectorAll("#filters select, #filters input")) {
  element.addEventListener("change", told(loadQueue));
}
for (const layer of Object.keys(editor.stage.layers)) {
  byId(`layer-${layer}`).addEventListener("change", ({ target }) => {
    editor.stage.layers[layer] = target.checked;
    editor.stage.redraw();
  });
}
byId("who").value = localStorage.getItem("imagenet3d annotator") ?? "";
const draftsOf = new Map(); // name -> what was not saved under it, for whoever takes the name again
let person = who();
byId("who").addEventListener("change", told(() => {
  const before = person;
  person = who();
  localStorage.setItem("imagenet3d annotator", person);
  editor.keepDraft();
  editor.object = null;
  const kept = draftsOf.get(person) ?? [];
  draftsOf.delete(person);
  if (before) draftsOf.set(before, editor.drafts);
  editor.drafts = new Map([...kept, ...(before ? [] : editor.drafts)]); // what nobody did is of who gives a name now
  return loadQueue();
}));
addEventListener("beforeunload", (event) => {
  editor.keepDraft();
  const drafts = [editor.drafts, ...draftsOf.values()].flatMap((kept) => [...kept.values()]);
  if (drafts.some(({ isLeftOut }) => !isLeftOut)) event.preventDefault();
});

told(() => showReview(beginsWithReview))();

/* What is worked on, for whoever tries things out on the console. */
globalThis.annotate = { editor, queue, reviewing, sides };
