"use strict";
/* One object that is worked on: its values, what was undone, and the controls that show and change them. */

const ANGLES = ["azimuth", "elevation", "theta"];
const STATUSES = ["good", "partially", "barely", "bad"];

class Editor {
  constructor() {
    this.stage = new Stage(byId("stage"), (change, isOver) => this.gesture(change, isOver));
    this.drafts = new Map(); // number -> what was done to an object and is not saved
    this.object = null;
    this.before = false;
    this.setUpControls();
  }

  // ------------------------------------------------------------------------------------ an object comes

  async open(object) {
    this.object = object;
    this.before = false;
    const draft = this.drafts.get(object.number);
    const first = { ...(object.mine ?? object.start) };
    this.past = draft?.past ?? [first];
    this.place = draft?.place ?? 0;
    this.saved = first;
    byId("note").value = draft?.note ?? object.note;
    byId("before").setAttribute("aria-pressed", "false");
    this.stage.show(null, null, null);
    this.showModels();
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

  get isChanged() {
    return this.place > 0 || byId("note").value !== this.object.note;
  }

  keepDraft() {
    if (!this.object) return;
    if (this.isChanged) {
      this.drafts.set(this.object.number, { past: this.past, place: this.place, note: byId("note").value });
    } else {
      this.drafts.delete(this.object.number);
    }
  }

  // --------------------------------------------------------------------------------------- changes

  /** Change values in one step that can be undone; a step goes on while `isOpen`. */
  change(changes, goesOn = false) {
    if (!this.object || this.before) return;
    const next = { ...this.values, ...changes };
    if (Object.keys(changes).every((name) => next[name] === this.values[name])) return;
    if (this.goesOn) {
      this.past[this.place] = next;
    } else {
      this.past = [...this.past.slice(0, this.place + 1), next];
      this.place += 1;
    }
    this.goesOn = goesOn;
    this.refresh();
  }

  gesture(change, isOver) {
    if (change) this.change(limited(change(this.values)), !isOver);
    if (isOver) this.goesOn = false;
  }

  step(name, by) {
    const value = this.values[name] + by;
    this.change(limited({ [name]: ANGLES.includes(name) ? wrapped(value) : value }));
  }

  undo(by) {
    const place = Math.min(Math.max(this.place + by, 0), this.past.length - 1);
    if (place === this.place) return say(by < 0 ? "Nothing to undo" : "Nothing to redo");
    this.place = place;
    this.goesOn = false;
    return this.refresh();
  }

  reset() {
    this.change({ ...this.object.start });
  }

  /** What the release says instead of what stands here, until it is asked for again. */
  toggleBefore() {
    this.before = !this.before;
    byId("before").setAttribute("aria-pressed", String(this.before));
    this.refresh();
  }

  // --------------------------------------------------------------------------------------- showing

  async refresh() {
    const { object } = this;
    const shown = this.before ? { ...this.values, ...object.released } : this.values;
    this.showValues(shown);
    this.stage.change(shown);
    const mesh = await modelOf(object.category, shown.cad_index);
    if (this.object === object) this.stage.change(this.before ? shown : this.values, mesh);
  }

  showValues(shown) {
    for (const name of ANGLES) {
      const degrees = shown[name] === null ? "" : degreesOf(((shown[name] + TURN * 2.5) % TURN) - TURN / 2);
      byId(name).value = degrees === "" ? "" : Number(degrees.toFixed(2));
      byId(`${name}-slider`).value = degrees;
    }
    for (const name of ["distance", "px", "py", "viewport"]) {
      byId(name).value = shown[name] === null ? "" : Number(shown[name].toFixed(3));
    }
    byId("distance-slider").value = shown.distance === null ? 0 : Math.log2(shown.distance);
    for (const input of document.querySelectorAll("[name=status]")) input.checked = input.value === shown.object_status;
    for (const input of document.querySelectorAll("[name=dense]")) input.checked = input.value === String(shown.dense);
    for (const button of byId("models").children) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.index) === shown.cad_index));
    }
    byId("undo").disabled = this.place === 0;
    byId("redo").disabled = this.place === this.past.length - 1;
    byId("changed").textContent = this.before ? "the release" : this.isChanged ? "not saved" : this.object.mine ? "saved" : "";
    byId("leave-out").textContent = this.object.left_out ? "Take back" : "Leave out";
    byId("out").hidden = !this.object.left_out;
    byId("stage").setAttribute("aria-label", this.described(shown));
  }

  /** The picture in words. */
  described(shown) {
    const { image_id: image, object_index: index, category } = this.object;
    const parts = [`${category}, picture ${image}, object ${index}, with its box`];
    if (this.stage.mesh) parts.push(`CAD model ${shown.cad_index} and axes drawn`);
    parts.push(...ANGLES.filter((n) => shown[n] !== null).map((n) => `${n} ${Math.round(degreesOf(shown[n]))}°`));
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
