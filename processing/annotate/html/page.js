"use strict";
/* The queue, saving, the review of two readings, and the keys. */

const editor = new Editor();
const queue = { numbers: [], done: [], at: 0, who: null };
let steps = 0; // of going through the queue: an answer that comes after the next step is dropped
const who = () => byId("who").value.trim();

// ------------------------------------------------------------------------------------------ the queue

const FILTERS = ["category", "split", "status", "density", "below"];

/** The queue as the filters have it; on from where one stopped, or at the object of a number. */
async function loadQueue(number = null) {
  const query = Object.fromEntries(FILTERS.map((name) => [name, byId(`filter-${name}`).value]));
  for (const name of ["unposed", "named"]) query[name] = byId(`filter-${name}`)?.checked ? "1" : "";
  if (query.below) say("Measuring how far boxes and meshes agree …");
  const name = who();
  Object.assign(queue, await get("/api/queue", { ...query, who: name }), { who: name });
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
  await open({ isNew: true, number, image_id, object_index, category, models, start: null, mine: null, released: {}, note: "" });
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
  const { object, values } = editor;
  if (!object || byId("save").disabled) return;
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
  const { number, image_id, object_index } = object;
  const body = { number, image_id, object_index, operation, who: who(), note: byId("note").value };
  if (hasValues) body.values = values;
  byId("save").disabled = true;
  let saved;
  try {
    ({ saved } = await post("/api/save", body));
  } catch (error) {
    say(`Not saved: ${error.message}`, true);
    return;
  } finally {
    byId("save").disabled = false;
  }
  editor.drafts.delete(keyOf(object));
  editor.object = null;
  if (operation === "add") {
    await loadQueue(number); // the new one stands behind those of its picture
    say(`Added ${image_id}, object ${saved.object_index}`);
    return;
  }
  queue.done[queue.numbers.indexOf(number)] = true;
  const place = queue.at;
  await (byId("advance").checked ? nextUndone() : go(place));
  if (editor.object === null) await go(place);
  say(`Saved ${image_id}, object ${object_index}`);
}

// ------------------------------------------------------------------------------------------- review

const sides = [...document.querySelectorAll("#review .stage")].map((element) => new Stage(element));
const reviewing = { numbers: [], pair: null };

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
  if (number === undefined) return;
  const pair = await get(`/api/pair/${number}`);
  const picture = await pictureOf(number);
  byId("pair-object").textContent = `${pair.image_id} · object ${pair.object_index}`;
  for (const [side, reading] of pair.readings.entries()) {
    const { values } = reading;
    sides[side].show(picture, values, await modelOf(pair.category, values.cad_index));
    const angles = ANGLES.map((name) => `${name} ${Math.round(degreesOf(values[name]))}°`).join(", ");
    const words = reading.left_out
      ? "leaves the object out"
      : `${angles}, distance ${values.distance.toFixed(2)}, CAD model ${values.cad_index}, ${values.object_status}, ${values.dense ? "dense" : "not dense"}`;
    sides[side].element.setAttribute("aria-label", `${["Left", "Right"][side]} reading of ${pair.image_id}: ${words}`);
    byId(`words-${side}`).textContent = words;
  }
  reviewing.pair = pair;
}

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
  c: () => editor.nextModel(1), C: () => editor.nextModel(-1),
  ...Object.fromEntries(STATUSES.map((status, i) => [i + 1, () => editor.change({ object_status: status })])),
  5: () => editor.change({ dense: true }), 6: () => editor.change({ dense: false }),
  n: () => go(queue.at + 1), p: () => go(queue.at - 1), u: () => nextUndone(),
  d: () => toggleNew(), x: () => leaveOut(), Escape: () => (editor.isDrawing ? toggleNew() : undefined),
  Enter: () => save(), r: () => editor.reset(), v: () => editor.toggleBefore(), z: () => closeUp(),
  b: () => toggleLayer("box"), f: () => toggleLayer("faces"), o: () => toggleLayer("outline"), a: () => toggleLayer("axes"),
  t: () => byId("note").focus(),
  "ctrl z": () => editor.undo(-1), "ctrl y": () => editor.undo(1), "ctrl Z": () => editor.undo(1),
};
const REVIEW_KEYS = { 1: () => choose(0), 2: () => choose(1), n: () => nextPair() };

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
  const steers = target.matches("input") && key.startsWith("Arrow"); // sliders and radio buttons have their own
  const presses = target.matches("button, summary, a") && (key === "Enter" || key === " ");
  if (steers || presses) return;
  const name = event.ctrlKey ? `ctrl ${key}` : event.shiftKey && key.startsWith("Arrow") ? `shift ${key}` : key;
  const action = (byId("review").hidden ? KEYS : REVIEW_KEYS)[name];
  if (!action || (byId("review").hidden && !editor.object)) return;
  event.preventDefault();
  told(action)();
});

for (const [id, action] of Object.entries({
  save: () => save(), undo: () => editor.undo(-1), redo: () => editor.undo(1), reset: () => editor.reset(),
  before: () => editor.toggleBefore(), "close-up": () => closeUp(),
  previous: () => go(queue.at - 1), next: () => go(queue.at + 1), undone: () => nextUndone(),
  add: () => toggleNew(), "leave-out": () => leaveOut(),
  "to-review": () => showReview(byId("review").hidden),
  left: () => choose(0), right: () => choose(1), skip: () => nextPair(),
})) {
  byId(id).addEventListener("click", told(action));
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
byId("who").addEventListener("change", told(() => {
  localStorage.setItem("imagenet3d annotator", who());
  editor.drafts.clear();
  return loadQueue();
}));
addEventListener("beforeunload", (event) => {
  editor.keepDraft();
  if (editor.drafts.size) event.preventDefault();
});

told(() => showReview(beginsWithReview))();

/* What is worked on, for whoever tries things out on the console. */
globalThis.annotate = { editor, queue, reviewing, sides };
