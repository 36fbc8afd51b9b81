"use strict";
/* One object that is worked on: its values, what was undone, and the controls that show and change them.

   A new one, which is to be added to the picture, has no values before its box is drawn. */

const ANGLES = ["azimuth", "elevation", "theta"];
const STATUSES = ["good", "partially", "barely", "bad"];
const SIDES = ["x1", "y1", "x2", "y2"];
const LEAST_SIDE = 2; // of a drawn box, pixels of the picture: a click draws none
const GUESSED = [...poseFields, "cad_index"]; // what the page begins with where nothing is known
const NOTHING = Object.fromEntries([...poseFields, "cad_index", "bbox", "object_status", "dense"].map((name) => [name, null]));

/** What a draft is kept under: a picture has one new object at a time. */
const keyOf = (object) => (object.isNew ? `new in ${object.image_id}` : object.number);

const WHAT_TO_DRAW = "Drag a box around the object, or type its four sides";
const NAMES = { px: "x", py: "y", cad_index: "CAD model" }; // where the page calls a field otherwise
const IS_BEFORE = "This is the release; press v first";

class Editor {
  constructor() {
    this.stage = new Stage(byId("stage"), (change, isOver) => told(() => this.gesture(change, isOver))());
    this.drafts = new Map(); // key -> what was done to an object and is not saved
    this.made = new WeakSet(); // values whose pose a person made or took; of others it may be a guess
    this.object = null;
    this.before = false;
    this.setUpControls();
  }

  // ------------------------------------------------------------------------------------ an object comes

  async open(object) {
    this.keepDraft(); // of the one before, which was seen until now
    this.object = object;
    this.before = false;
    const draft = this.drafts.get(keyOf(object));
    if (object.isNew) object.start = draft?.start ?? null;
    this.past = draft?.past ?? [this.first()];
    this.place = draft?.place ?? 0;
    this.saved = draft ? draft.saved : this.values;
    this.goesOn = false;
    this.stage.draws = this.isDrawing;
    byId("note").value = draft?.note ?? object.note;
    byId("before").setAttribute("aria-pressed", "false");
    this.stage.show(null, null, null);
    this.showModels();
    this.showValues(this.values);
    const [picture, mesh] = await Promise.all([
      pictureOf(object.number),
      modelOf(object.category, this.values.cad_index),
    ]);
    if (this.object !== object) return;
    this.stage.show(picture, this.values, mesh);
    this.refresh();
  }

  get values() {
    return this.past[this.place];
  }

  /** What this person or else the release says of the object, and a guess for what neither says. */
  first() {
    const { start, released, mine } = this.object;
    const first = { ...(start ?? NOTHING), ...mine };
    const isSaid = (name) => mine && mine[name] !== null && mine[name] !== released[name];
    for (const name of this.guessable) if (!isSaid(name)) first[name] = start[name];
    if (this.guessable.some((name) => poseFields.includes(name) && isSaid(name))) this.made.add(first);
    return first;
  }

  /** What the release does not say, or not so that it could be drawn. */
  get guessable() {
    const { start, released } = this.object;
    return start === null ? [] : GUESSED.filter((name) => start[name] !== released[name]);
  }

  /** The fields that are still the guess. */
  get guesses() {
    if (this.made.has(this.values)) return [];
    return this.guessable.filter((name) => this.values[name] === this.object.start[name]);
  }

  /** What a save writes: of a guess, what the release says. */
  get said() {
    const { released } = this.object;
    return { ...this.values, ...Object.fromEntries(this.guesses.map((name) => [name, released[name]])) };
  }

  /** The values, and where one is null what the page begins with: steps go from there. */
  get known() {
    const { start } = this.object;
    return Object.fromEntries(Object.entries(this.values).map(([name, value]) => [name, value ?? start?.[name] ?? null]));
  }

  /** Whether there is a new object whose box is yet to be drawn. */
  get isDrawing() {
    return this.object?.start === null;
  }

  get isChanged() {
    if (this.object.isNew) return !this.isDrawing;
    return this.values !== this.saved || byId("note").value !== this.object.note;
  }

  keepDraft() {
    if (!this.object) return;
    const { past, place, saved, object } = this;
    if (this.isChanged) {
      const { start, left_out: isLeftOut } = object;
      this.drafts.set(keyOf(object), { past, place, saved, start, isLeftOut, note: byId("note").value });
    } else {
      this.drafts.delete(keyOf(object));
    }
  }

  /** What was saved is no draft any more, and is closed if it is open; what was changed since then stays.

      Returns whether nothing was. `drafts` are those of who saved. */
  settle(drafts, object, values, note) {
    const key = keyOf(object);
    const isOpen = this.object !== null && keyOf(this.object) === key;
    if (isOpen) this.keepDraft();
    const draft = drafts.get(key);
    if (draft && (draft.past[draft.place] !== values || draft.note !== note)) {
      draft.saved = values;
      if (isOpen) {
        this.saved = values;
        Object.assign(this.object, { note, mine: values });
        this.refresh();
      }
      return false;
    }
    drafts.delete(key);
    if (isOpen) this.object = null;
    return true;
  }

  // --------------------------------------------------------------------------------------- changes

  /** Change values in one step that can be undone; a step goes on while `goesOn`.

      `isMade`: whether the pose is one that a person made; if not given, it is once a field of it changes. */
  change(changes, goesOn = false, isMade = undefined) {
    if (!this.object) return undefined;
    if (this.before) {
      this.refresh();
      return say(IS_BEFORE, true);
    }
    if (this.isDrawing && !("bbox" in changes)) {
      this.refresh();
      return say(WHAT_TO_DRAW, true);
    }
    const next = { ...this.values, ...changes };
    const isChanged = (name) => next[name] !== this.values[name];
    const wasMade = this.made.has(this.values);
    isMade ??= wasMade || poseFields.some(isChanged);
    if (isMade === wasMade && !Object.keys(changes).some(isChanged)) return undefined;
    if (isMade) this.made.add(next);
    if (this.goesOn) {
      this.past[this.place] = next;
    } else {
      this.past = [...this.past.slice(0, this.place + 1), next];
      this.place += 1;
    }
    this.goesOn = goesOn;
    return this.refresh();
  }

  gesture(change, isOver) {
    if (change) this.change(limited(change(this.known)), !isOver);
    if (isOver) this.goesOn = false;
    return isOver && this.isDrawing && this.values.bbox ? this.begin() : undefined;
  }

  /** The box of a new object is drawn: its pose begins with a guess. */
  async begin() {
    const { object, values: { bbox } } = this;
    if (bbox[2] - bbox[0] < LEAST_SIDE || bbox[3] - bbox[1] < LEAST_SIDE) {
      Object.assign(this, { past: [NOTHING], place: 0 });
      this.refresh();
      return say(WHAT_TO_DRAW, true);
    }
    const { start } = await get(`/api/guess/${object.number}`, { bbox });
    if (this.object !== object || this.values.bbox !== bbox) return undefined;
    object.start = start;
    Object.assign(this, { past: [this.first()], place: 0 });
    this.stage.draws = false;
    say("Make the pose, choose a status and a density, and save");
    return this.refresh();
  }

  /** One side of the box is typed; of a new object all four are waited for. */
  typeSide(side) {
    const { bbox } = this.values;
    const typed = SIDES.map((name, i) => (bbox && i !== side ? bbox[i] : byId(name).valueAsNumber));
    if (typed.some(Number.isNaN)) return bbox && this.refresh();
    if (typed[2] <= typed[0] || typed[3] <= typed[1]) {
      if (bbox) this.refresh();
      return say("x1 is to be below x2, and y1 below y2", true);
    }
    this.change({ bbox: typed.map((value) => Math.min(Math.max(value, -1e6), 1e6)) });
    return this.isDrawing ? this.begin() : undefined;
  }

  step(name, by) {
    const value = this.known[name] + by;
    this.change(limited({ [name]: ANGLES.includes(name) ? wrapped(value) : value }));
  }

  undo(by) {
    if (this.before) return say(IS_BEFORE, true);
    const place = Math.min(Math.max(this.place + by, 0), this.past.length - 1);
    if (place === this.place) return say(by < 0 ? "Nothing to undo" : "Nothing to redo");
    this.place = place;
    this.goesOn = false;
    return this.refresh();
  }

  reset() {
    this.change({ ...this.object.start }, false, false);
  }

  /** Say that the guess is right as it is. */
  takeGuess() {
    if (this.guesses.length) this.change({}, false, true);
  }

  /** What the release says instead of what stands here, until it is asked for again. */
  toggleBefore() {
    if (this.object.isNew) return;
    this.before = !this.before;
    byId("before").setAttribute("aria-pressed", String(this.before));
    this.refresh();
  }

  // --------------------------------------------------------------------------------------- showing

  async refresh() {
    const { object } = this;
    if (!object) return;
    const shown = this.before ? { ...this.values, ...object.released } : this.values;
    this.showValues(shown);
    this.stage.change(shown);
    const mesh = await modelOf(object.category, shown.cad_index);
    if (this.object === object) this.stage.change(this.before ? shown : this.values, mesh);
  }

  showValues(shown) {
    for (const name of ANGLES) {
      const degrees = shown[name] === null ? "" : shownDegrees(shown[name]);
      byId(name).value = degrees === "" ? "" : Number(degrees.toFixed(2));
      byId(`${name}-slider`).value = degrees;
    }
    for (const name of ["distance", "px", "py", "viewport"]) {
      byId(name).value = shown[name] === null ? "" : Number(shown[name].toFixed(3));
    }
    for (const [i, side] of SIDES.entries()) byId(side).value = shown.bbox ? Number(shown.bbox[i].toFixed(3)) : "";
    byId("distance-slider").value = shown.distance === null ? 0 : Math.log2(shown.distance);
    for (const input of document.querySelectorAll("[name=status]")) input.checked = input.value === shown.object_status;
    for (const input of document.querySelectorAll("[name=dense]")) input.checked = input.value === String(shown.dense);
    for (const button of byId("models").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.index) === shown.cad_index));
    }
    const guesses = this.before ? [] : this.guesses;
    byId("guess").hidden = guesses.length === 0;
    byId("guess").firstElementChild.textContent =
      `A guess: ${guesses.map((name) => NAMES[name] ?? name).join(", ")}. It is not saved until you change the pose.`;
    byId("undo").disabled = this.place === 0;
    byId("redo").disabled = this.place === this.past.length - 1;
    byId("changed").textContent = this.before ? "the release" : this.isChanged ? "not saved" : this.object.mine ? "saved" : "";
    const { isNew, left_out: isLeftOut, added } = this.object;
    byId("leave-out").firstElementChild.textContent = isNew ? "Discard" : isLeftOut ? "Take back" : "Leave out";
    byId("out").hidden = !isLeftOut;
    byId("added").hidden = !added;
    byId("before").disabled = isNew;
    byId("add").setAttribute("aria-pressed", String(isNew));
    byId("stage").setAttribute("aria-label", this.described(shown));
  }

  /** The picture in words. */
  described(shown) {
    const { image_id: image, object_index: index, category } = this.object;
    if (this.isDrawing) return `${category}, picture ${image}, to which an object is added. ${WHAT_TO_DRAW}`;
    const parts = [`${category}, picture ${image}, ${this.object.isNew ? "a new object" : `object ${index}`}, with its box`];
    if (this.stage.mesh) parts.push(`CAD model ${shown.cad_index} and axes drawn`);
    parts.push(...ANGLES.filter((n) => shown[n] !== null).map((n) => `${n} ${Math.round(shownDegrees(shown[n]))}°`));
    if (!this.before && this.guesses.includes("azimuth")) parts.push("which is a guess");
    return parts.join(", ");
  }

  showModels() {
    const { category, models } = this.object;
    byId("models").replaceChildren(...models.map((index) => {
      const button = Object.assign(document.createElement("button"), { type: "button" });
      button.dataset.index = index;
      const image = Object.assign(document.createElement("img"), { alt: `CAD model ${index}`, width: 72, height: 72 });
      button.append(image);
      button.addEventListener("click", () => this.change({ cad_index: index }));
      thumbnailOf(category, index).then((url) => { image.src = url; }, () => image.replaceWith(`${index}`));
      return button;
    }));
  }

  nextModel(by) {
    const { models } = this.object;
    if (!models.length) return;
    const place = models.indexOf(this.values.cad_index);
    this.change({ cad_index: models[(place + by + models.length) % models.length] });
    byId("models").querySelector("[aria-pressed=true]")?.scrollIntoView({ block: "nearest" });
  }

  setUpControls() {
    const number = (name, toValue) => {
      byId(name).addEventListener("change", ({ target }) => {
        if (target.value === "" || !Number.isFinite(target.valueAsNumber)) return this.refresh();
        return this.change(limited({ [name]: toValue(target.valueAsNumber) })) ?? this.refresh();
      });
    };
    const slider = (name, toValue) => {
      const input = byId(`${name}-slider`);
      input.addEventListener("input", () => this.change(limited({ [name]: toValue(input.valueAsNumber) }), true));
      input.addEventListener("change", () => { this.goesOn = false; });
    };
    for (const name of ANGLES) {
      number(name, (degrees) => wrapped(radians(degrees)));
      slider(name, (degrees) => wrapped(radians(degrees)));
    }
    for (const name of ["distance", "px", "py", "viewport"]) number(name, (value) => value);
    slider("distance", (power) => 2 ** power);
    for (const [i, side] of SIDES.entries()) {
      byId(side).addEventListener("change", told(() => this.typeSide(i)));
    }
    for (const input of document.querySelectorAll("[name=status]")) {
      input.addEventListener("change", () => this.change({ object_status: input.value }));
    }
    for (const input of document.querySelectorAll("[name=dense]")) {
      input.addEventListener("change", () => this.change({ dense: input.value === "true" }));
    }
  }
}

/** Values that a correction may have. */
function limited(changes) {
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  for (const name of ["px", "py"]) if (name in changes) changes[name] = clamp(changes[name], -1e6, 1e6);
  if ("distance" in changes) changes.distance = clamp(changes.distance, 0.05, 1e6);
  if ("viewport" in changes) changes.viewport = clamp(changes.viewport, 1, 1e9);
  return changes;
}
