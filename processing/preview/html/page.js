/* The page: filters, layers, keys, and the dialog in which an object is enlarged and turned. */

const byId = (id) => document.getElementById(id);
const cards = [...document.querySelectorAll(".card")];
const isShown = (card) => !card.hidden;

// ---------------------------------------------------------------------------------------------- filters

const filters = byId("filters");

/** Show the cards that have, in every group with a choice, one of the chosen values. */
function applyFilters() {
  const chosen = new Map();
  for (const [name, value] of new FormData(filters)) {
    if (value !== "") chosen.set(name, (chosen.get(name) ?? new Set()).add(value));
  }
  for (const card of cards) {
    card.hidden = ![...chosen].every(([name, values]) => values.has(card.dataset[name]));
  }
  for (const section of document.querySelectorAll(".categories > section")) {
    const inside = [...section.querySelectorAll(".card")];
    section.hidden = chosen.size > 0 && !inside.some(isShown);
  }
  const count = cards.filter(isShown).length;
  byId("shown").value = chosen.size > 0 ? `${count} of ${cards.length} objects` : `${cards.length} objects`;
  byId("reset").hidden = chosen.size === 0;
  byId("nothing").hidden = count > 0 || cards.length === 0;
}

filters.addEventListener("input", (event) => event.target.id.startsWith("show-") || applyFilters());
filters.addEventListener("submit", (event) => event.preventDefault());
byId("reset").addEventListener("click", (event) => {
  event.preventDefault(); // which would also put the layers back
  showAll();
});
byId("reset-too").addEventListener("click", showAll);

function showAll() {
  byId("filter-category").value = "";
  for (const box of filters.querySelectorAll(".chips input")) box.checked = false;
  applyFilters();
  byId("filter-category").focus({ preventScroll: true });
}

// ------------------------------------------------------------------------------------------- on this page

/** Scroll until the goal stands still: a card that was never on the screen is of a guessed height. */
function goTo(goal, tries = 30) {
  goal.scrollIntoView({ behavior: "instant", block: "start" });
  const top = goal.getBoundingClientRect().top;
  const again = () => tries > 0 && goal.getBoundingClientRect().top !== top && goTo(goal, tries - 1);
  requestAnimationFrame(() => requestAnimationFrame(again));
}

for (const link of document.querySelectorAll('nav a[href^="#"], .skip')) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const goal = document.querySelector(link.hash);
    history.replaceState(null, "", link.hash);
    goal.tabIndex = -1;
    goal.focus({ preventScroll: true });
    goTo(goal);
  });
}

// ----------------------------------------------------------------------------------------------- layers

const layerShown = (name) => byId(`show-${name}`)?.checked ?? false;

function toggleLayer(name) {
  const box = byId(`show-${name}`);
  if (box === null) return false;
  box.checked = !box.checked;
  redraw();
  return true;
}

for (const box of document.querySelectorAll(".switches input")) box.addEventListener("change", () => redraw());

// --------------------------------------------------------------------------------------------- enlarged

const dialog = byId("large");
const stage = byId("stage");
const dialNames = ["azimuth", "elevation", "theta", "distance"];
const dials = dialNames.map((name) => byId(`turn-${name}`));
const TURN = 2 * Math.PI;
const DISTANCE_STEPS = 20; // of the slider, for twice the distance

/* What is enlarged: the card, its picture, a canvas over it, the annotated pose and the one that is shown. */
let open = null;

async function enlarge(card, turn = false) {
  const picture = card.querySelector(".picture svg").cloneNode(true);
  for (const part of picture.querySelectorAll("[id]")) part.removeAttribute("id");
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-hidden", "true");
  stage.replaceChildren(picture, canvas);
  const [, , width, height] = picture.getAttribute("viewBox").split(" ").map(Number);
  stage.style.setProperty("--ratio", width / height);
  const annotated = card.dataset.pose ? JSON.parse(card.dataset.pose) : null;
  open = { card, picture, canvas, width, height, annotated, pose: annotated && [...annotated], mesh: null };
  stage.classList.remove("turned");
  byId("large-title").textContent = `${card.dataset.category.replaceAll("_", " ")} `;
  byId("facts").replaceChildren(...factsOf(card));
  byId("dials").hidden = annotated === null;
  byId("how").textContent = card.dataset.mesh ? "Drag the picture, or move the sliders." : "Only the axes turn: there is no mesh.";
  if (annotated) setUpDials();
  if (!dialog.open) dialog.showModal();
  redraw();
  if (turn && annotated) dials[0].focus();
  const mine = open;
  const mesh = card.dataset.mesh ? await meshOf(card.dataset.mesh) : null;
  if (open !== mine) return;
  open.mesh = mesh;
  if (mesh && mesh.whole > mesh.faces.length / 3) {
    byId("how").textContent += ` Turned with ${(mesh.faces.length / 3).toLocaleString("en")} of the mesh's ${mesh.whole.toLocaleString("en")} faces.`;
  }
  redraw();
}

function factsOf(card) {
  const parts = ["h3", ".pose", ".marks", ".remark", ".more"].map((name) => card.querySelector(name));
  return parts.filter(Boolean).map((part) => {
    const copy = part.cloneNode(true);
    copy.hidden = false;
    return copy;
  });
}

function step(direction) {
  const shown = cards.filter(isShown);
  const place = shown.indexOf(open.card);
  const next = shown[(place + direction + shown.length) % shown.length];
  if (next) enlarge(next);
}

dialog.addEventListener("close", () => {
  const { card } = open;
  open = null;
  stage.replaceChildren();
  card.querySelector(".picture").focus({ preventScroll: false });
});
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close()); // on the backdrop
byId("close").addEventListener("click", () => dialog.close());
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => enlarge(byId(button.dataset.open), "turn" in button.dataset));
}

// ---------------------------------------------------------------------------------------------- sliders

const toDegrees = (angle) => (angle * 360) / TURN;

/** Degrees as the cards say them: azimuth in [0, 360), the others within ±180. */
function shownDegrees(name, angle) {
  const turns = angle / TURN;
  return name === "azimuth" ? toDegrees((turns - Math.floor(turns)) * TURN) : toDegrees((turns - Math.round(turns)) * TURN);
}

/** Sliders that stand exactly at the annotated pose, with one step a degree from there. */
function setUpDials() {
  dialNames.forEach((name, i) => {
    const dial = dials[i];
    if (name === "distance") {
      [dial.min, dial.max, dial.step] = [-2 * DISTANCE_STEPS, 2 * DISTANCE_STEPS, 1];
    } else {
      const value = shownDegrees(name, open.annotated[i]);
      const reach = name === "elevation" && Math.abs(value) <= 90 ? 90 : 180;
      const low = name === "azimuth" ? 0 : -reach;
      const first = low + (value - low - Math.floor(value - low));
      [dial.min, dial.max, dial.step] = [first, name === "azimuth" ? first + 359 : first + 2 * reach - 1, 1];
    }
  });
  showDials();
}

function showDials() {
  dialNames.forEach((name, i) => {
    const distance = name === "distance";
    const degrees = distance ? 0 : shownDegrees(name, open.pose[i]);
    dials[i].value = distance ? Math.log2(open.pose[3] / open.annotated[3]) * DISTANCE_STEPS : degrees;
    const text = distance ? open.pose[3].toFixed(2) : `${degrees.toFixed(1).replace("-", "−")}°`;
    byId(`value-${name}`).value = text;
    dials[i].setAttribute("aria-valuetext", text);
  });
  byId("annotated").disabled = open.pose.every((value, i) => value === open.annotated[i]);
}

dials.forEach((dial, i) =>
  dial.addEventListener("input", () => {
    const value = dial.valueAsNumber;
    open.pose[i] = i === 3 ? open.annotated[3] * 2 ** (value / DISTANCE_STEPS) : (value / 360) * TURN;
    showDials();
    redraw();
  }),
);

function backToAnnotated() {
  open.pose = [...open.annotated];
  showDials();
  redraw();
}
byId("annotated").addEventListener("click", backToAnnotated);

/* Dragging goes around the object: to the right the camera moves left, as if the object were turned by hand. */
let drag = null;
stage.addEventListener("pointerdown", (event) => {
  if (!open?.annotated) return;
  drag = { x: event.clientX, y: event.clientY, pose: [...open.pose] };
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener("pointermove", (event) => {
  if (!drag || !open) return;
  const perPixel = Math.PI / stage.clientWidth;
  const elevation = shownDegrees("elevation", drag.pose[1]) / toDegrees(1) + (event.clientY - drag.y) * perPixel;
  open.pose[0] = drag.pose[0] - (event.clientX - drag.x) * perPixel;
  open.pose[1] = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, elevation));
  showDials();
  redraw();
});
for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => (drag = null));

// ---------------------------------------------------------------------------------------------- drawing

const SHARPNESS = 2; // pixels of the canvas for one of the page, at least
const LARGEST_CANVAS = 2000;

/** Draw the shown pose, unless it is the annotated one, which the picture shows already. */
function redraw() {
  if (!open?.annotated) return;
  const turned = open.pose.some((value, i) => value !== open.annotated[i]);
  stage.classList.toggle("turned", turned);
  sizeNames();
  const { canvas, mesh } = open;
  const sharpness = Math.max(SHARPNESS, devicePixelRatio);
  const width = Math.min(LARGEST_CANVAS, Math.round(stage.clientWidth * sharpness));
  const scale = width / open.width;
  [canvas.width, canvas.height] = [width, Math.round(open.height * scale)];
  open.view = null;
  if (!turned) return;
  const pose = open.pose.map((value, i) => (i < 4 ? value : value * scale));
  const context = canvas.getContext("2d");
  const unit = width / Math.max(1, stage.clientWidth);
  if (mesh) {
    open.view = project(mesh.points, pose);
    const raster = rasterise(mesh.faces, open.view, canvas.width, canvas.height);
    const show = { faces: layerShown("faces"), outline: layerShown("outline") };
    if (raster) paintMesh(context, mesh, raster, pose, show, Math.round(1.5 * unit));
  }
  if (layerShown("axes")) paintAxes(context, pose, axesLength(), unit);
}

/** Names of the axes as large as those that are turned, however much the picture is enlarged. */
function sizeNames() {
  const unit = open.width / Math.max(1, stage.clientWidth);
  for (const circle of open.picture.querySelectorAll("circle")) circle.setAttribute("r", 9 * unit);
  for (const name of open.picture.querySelectorAll("text")) name.setAttribute("font-size", 12 * unit);
}

/** As long as those drawn at the annotated pose: half of the box's longer side, as processing/draw.py has it. */
function axesLength() {
  const box = open.picture.querySelector(".layer-box .line");
  const side = Math.max(...["width", "height"].map((name) => Number(box.getAttribute(name))));
  const [, , , distance, , , viewport] = open.annotated;
  return Math.min(((side / 2) * distance) / viewport, Math.min(distance, open.pose[3]) / 2);
}

addEventListener("resize", () => redraw());

// ------------------------------------------------------------------------------------------------- keys

const LAYER_KEYS = { b: "box", f: "faces", o: "outline", a: "axes" };
const takesKeys = (element) => element.matches("select, input:not([type=checkbox]), textarea");

/** The card that lies next to one, in the direction of an arrow key, as they are laid out now. */
function neighbour(card, key) {
  const middle = (element) => {
    const box = element.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  const shown = cards.filter(isShown);
  const place = shown.indexOf(card);
  if (key === "ArrowRight") return shown[place + 1];
  if (key === "ArrowLeft") return shown[place - 1];
  const [x, y] = middle(card);
  const sign = key === "ArrowDown" ? 1 : -1;
  let [best, nearest] = [undefined, Infinity];
  for (const other of shown) {
    const [left, top] = middle(other);
    const away = sign * (top - y);
    const distance = away + 2 * Math.abs(left - x);
    if (away > 40 && distance < nearest) [best, nearest] = [other, distance];
  }
  return best;
}

function handleKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const { key, target } = event;
  const typing = takesKeys(target);
  if (key in LAYER_KEYS && !target.matches("select")) return toggleLayer(LAYER_KEYS[key]);
  if (dialog.open) {
    if (key === "n" || (key === "ArrowRight" && !typing)) return step(1) ?? true;
    if (key === "p" || (key === "ArrowLeft" && !typing)) return step(-1) ?? true;
    if (key === "t" && open.annotated) return dials[0].focus() ?? true;
    if (key === "0" && open.annotated) return backToAnnotated() ?? true;
    return false;
  }
  if (typing) return false;
  if (key === "/") {
    byId("controls").open = true;
    return byId("filter-category").focus() ?? true;
  }
  const card = target.closest(".card");
  if (card === null) return false;
  if (key === "t" && card.dataset.pose) return enlarge(card, true) && true;
  if (key.startsWith("Arrow")) {
    const next = neighbour(card, key);
    next?.querySelector(".picture").focus();
    return next !== undefined;
  }
  return false;
}

document.addEventListener("keydown", (event) => handleKey(event) && event.preventDefault());

// ------------------------------------------------------------------------------------------------ start

if (matchMedia("(max-width: 62rem)").matches) byId("controls").open = false;
applyFilters();

/* What is enlarged, for whoever tries things out on the console. */
globalThis.preview = { project, meshOf, rasterise, current: () => open };
