"use strict";
/* A picture with what is drawn on it, and the gestures that turn and move the object. */

const TURN = 2 * Math.PI;
const radians = (degrees) => (degrees / 360) * TURN;
const degreesOf = (angle) => (angle / TURN) * 360;
/** An angle of any size as it is shown: degrees in [-180, 180). */
const shownDegrees = (angle) => degreesOf(wrapped(angle + TURN / 2) - TURN / 2);
const DRAG = radians(0.5); // of an angle for one pixel of the screen
const WHEEL = 0.001; // of the distance's logarithm for one unit of the wheel
const STILL = 100; // milliseconds without a frame after which nothing moves
const MOVING_PIXELS = 300_000; // of what is drawn over the picture while it moves: so frames are in time on large screens
const CLOSE_UP = 1.6; // how many times as large as its box the part of the picture about an object is

class Stage {
  /** `element` holds two canvases; `gesture(change, isOver)` gets what a hand does, as a function of values. */
  constructor(element, gesture = null) {
    this.element = element;
    [this.photo, this.over] = element.querySelectorAll("canvas");
    this.picture = null;
    this.values = null;
    this.mesh = null;
    this.closeUp = false;
    this.layers = { box: true, faces: true, outline: true, axes: true };
    this.waiting = false;
    this.frames = 0;
    this.painted = -Infinity; // when, in milliseconds
    new ResizeObserver(() => this.layOut()).observe(element);
    if (gesture) this.listen(gesture);
  }

  /** Whether a drag draws a box instead of turning the object. */
  get draws() {
    return this.element.classList.contains("draws");
  }

  set draws(isOn) {
    this.element.classList.toggle("draws", isOn);
  }

  show(picture, values, mesh) {
    Object.assign(this, { picture, values, mesh });
    if (!picture) for (const canvas of [this.photo, this.over]) canvas.width = canvas.width; // which empties it
    this.layOut();
  }

  change(values, mesh = this.mesh) {
    Object.assign(this, { values, mesh });
    this.redraw();
  }

  /** The part of the picture that is seen, and how large: canvas = (picture - corner) · scale. */
  layOut() {
    if (!this.picture) return;
    const { width, height } = this.picture;
    let part = [0, 0, width, height];
    if (this.closeUp && this.values.bbox) {
      const [x1, y1, x2, y2] = this.values.bbox;
      const [w, h] = [Math.abs(x2 - x1) * CLOSE_UP, Math.abs(y2 - y1) * CLOSE_UP];
      part = [(x1 + x2 - w) / 2, (y1 + y2 - h) / 2, Math.max(w, 8), Math.max(h, 8)];
    }
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const across = this.element.clientWidth;
    const down = this.element.clientHeight;
    if (!across || !down) return;
    const shown = Math.min(across / part[2], down / part[3]);
    const scale = shown * ratio;
    Object.assign(this, { screen: { scale, ratio }, corner: [part[0], part[1]] });
    this.photo.width = Math.max(1, Math.round(part[2] * scale));
    this.photo.height = Math.max(1, Math.round(part[3] * scale));
    for (const { style } of [this.photo, this.over]) {
      style.width = `${this.photo.width / ratio}px`;
      style.height = `${this.photo.height / ratio}px`;
    }
    this.sharpen(1);
    const context = this.photo.getContext("2d");
    context.setTransform(scale, 0, 0, scale, -part[0] * scale, -part[1] * scale);
    context.drawImage(this.picture, 0, 0);
    this.redraw();
  }

  /** How many pixels what is drawn over the picture has along each side, as a share of those of the screen. */
  sharpen(share) {
    const { scale, ratio } = this.screen;
    Object.assign(this, { share, scale: scale * share, ratio: ratio * share });
    this.over.width = Math.max(1, Math.round(this.photo.width * share));
    this.over.height = Math.max(1, Math.round(this.photo.height * share));
  }

  /** Fewer pixels while frames follow each other, and all of them once nothing moves. */
  sharpenAsItMoves() {
    const isMoving = performance.now() - this.painted < STILL;
    const pixels = this.photo.width * this.photo.height;
    const share = isMoving ? Math.min(1, Math.sqrt(MOVING_PIXELS / pixels)) : 1;
    if (share !== this.share) this.sharpen(share);
    clearTimeout(this.rest);
    if (share < 1) this.rest = setTimeout(() => this.redraw(), 1.2 * STILL);
    this.painted = performance.now();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  /** The pose in pixels of the canvas, as turn.js takes it; null where it cannot be drawn. */
  pose() {
    const { values, scale, corner } = this;
    const pose = poseFields.map((name) => values[name]);
    if (pose.some((value) => value === null) || values.distance <= 0 || values.viewport <= 0) return null;
    pose[4] = (pose[4] - corner[0]) * scale;
    pose[5] = (pose[5] - corner[1]) * scale;
    pose[6] *= scale;
    return pose;
  }

  paint() {
    if (!this.picture || !this.values || !this.screen) return;
    this.sharpenAsItMoves();
    const context = this.over.getContext("2d");
    context.clearRect(0, 0, this.over.width, this.over.height);
    const pose = this.pose();
    if (pose && this.mesh) {
      this.view = project(this.mesh.points, pose);
      const raster = rasterise(this.mesh.faces, this.view, this.over.width, this.over.height);
      if (raster) paintMesh(context, this.mesh, raster, pose, this.layers, Math.max(1, Math.round(1.5 * this.ratio)));
    }
    if (this.layers.box && this.values.bbox) this.paintBox(context);
    if (pose && this.layers.axes) paintAxes(context, pose, this.axesLength(pose), this.ratio);
    this.frames += 1;
  }

  paintBox(context) {
    const [x1, y1, x2, y2] = this.values.bbox.map((value, i) => (value - this.corner[i % 2]) * this.scale);
    for (const [color, width] of [["#0009", 3.5], [constants.boxColor, 1.8]]) {
      context.strokeStyle = color;
      context.lineWidth = width * this.ratio;
      context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    }
  }

  /** Half of the box's longer side, as processing/drawing/draw.py has it, and no axis reaches the camera. */
  axesLength(pose) {
    const [x1, y1, x2, y2] = this.values.bbox;
    const side = Math.max(Math.abs(x2 - x1), Math.abs(y2 - y1)) * this.scale;
    return Math.min(((side / 2) * pose[3]) / pose[6], pose[3] / 2);
  }

  listen(gesture) {
    let last = null;
    let corner = null; // of a box that is drawn
    const { element } = this;
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("pointerdown", (event) => {
      if (!this.values || !this.picture) return;
      event.preventDefault();
      element.focus({ preventScroll: true });
      element.setPointerCapture(event.pointerId);
      last = [event.clientX, event.clientY];
      corner = this.draws ? this.placeOf(event) : null;
    });
    element.addEventListener("pointermove", (event) => {
      if (!last) return;
      const [from, to] = [last, [event.clientX, event.clientY]];
      last = to;
      gesture(corner ? () => ({ bbox: boxOf(corner, this.placeOf(event)) }) : this.changeOf(event, from, to), false);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      element.addEventListener(name, () => {
        if (last) gesture(null, true);
        last = null;
      });
    }
    element.addEventListener("wheel", (event) => {
      if (!this.values || !this.picture) return;
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
      gesture((v) => ({ distance: v.distance * Math.exp(pixels * WHEEL) }), true);
    }, { passive: false });
  }

  /** The place in the picture that the pointer is at, or the nearest to it; hundredths of a pixel. */
  placeOf(event) {
    const { left, top } = this.over.getBoundingClientRect();
    const { width, height } = this.picture;
    const unit = this.ratio / this.scale;
    const places = [(event.clientX - left) * unit + this.corner[0], (event.clientY - top) * unit + this.corner[1]];
    return [width, height].map((end, axis) => Math.round(100 * Math.min(Math.max(places[axis], 0), end)) / 100);
  }

  /** What a move of the pointer does to the values, by the keys and the button that are held. */
  changeOf(event, from, to) {
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    if (event.ctrlKey || event.buttons & 2) {
      const unit = this.ratio / this.scale;
      return (v) => ({ px: v.px + dx * unit, py: v.py + dy * unit });
    }
    if (event.shiftKey) {
      const box = this.over.getBoundingClientRect();
      const pose = this.pose();
      const angle = ([x, y]) =>
        Math.atan2(pose[5] / this.ratio + box.top - y, x - box.left - pose[4] / this.ratio);
      const turned = pose ? angle(to) - angle(from) : 0;
      return (v) => ({ theta: wrapped(v.theta + Math.atan2(Math.sin(turned), Math.cos(turned))) });
    }
    return (v) => ({ azimuth: wrapped(v.azimuth - dx * DRAG), elevation: wrapped(v.elevation + dy * DRAG) });
  }
}

/** An angle in [0, 2π), as the release has them. */
const wrapped = (angle) => ((angle % TURN) + TURN) % TURN;

/** The box between two of its corners, whichever they are. */
const boxOf = ([x, y], [u, v]) => [Math.min(x, u), Math.min(y, v), Math.max(x, u), Math.max(y, v)];
