"use strict";
/* One object on a canvas: the projection of processing/geometry.py and the z-buffer of processing/drawing/raster.py.

   A pose is [azimuth, elevation, theta, distance, px, py, viewport], radians and pixels, as `project` takes it. */

const { constants, meshes } = JSON.parse(document.getElementById("data").textContent);

/** Object to camera: x right, y up, z backwards; nine numbers, row by row. */
function rotation(azimuth, elevation, theta) {
  const [sa, ca, se, ce] = [Math.sin(azimuth), Math.cos(azimuth), Math.sin(elevation), Math.cos(elevation)];
  const [st, ct] = [Math.sin(theta), Math.cos(theta)];
  return [
    ct * ca + st * se * sa, ct * sa - st * se * ca, -st * ce,
    st * ca - ct * se * sa, st * sa + ct * se * ca, ct * ce,
    ce * sa, -ce * ca, se,
  ];
}

/** Where points (x, y, z, x, y, z, …) land: pixels, and depth that is positive in front of the camera. */
function project(points, pose) {
  const [azimuth, elevation, theta, distance, px, py, viewport] = pose;
  const r = rotation(azimuth, elevation, theta);
  const count = points.length / 3;
  const view = { x: new Float64Array(count), y: new Float64Array(count), depth: new Float64Array(count) };
  for (let i = 0, k = 0; i < count; i++, k += 3) {
    const [x, y, z] = [points[k], points[k + 1], points[k + 2]];
    view.depth[i] = distance - (r[6] * x + r[7] * y + r[8] * z);
    const scale = viewport / view.depth[i];
    view.x[i] = px + scale * (r[0] * x + r[1] * y + r[2] * z);
    view.y[i] = py - scale * (r[3] * x + r[4] * y + r[5] * z);
  }
  return view;
}

const decoded = new Map();

/** The mesh of a key, as processing/preview/meshes.py embeds it; resolves to null where there is none. */
function meshOf(key) {
  if (!Object.hasOwn(meshes, key)) return Promise.resolve(null);
  if (!decoded.has(key)) decoded.set(key, decode(meshes[key]));
  return decoded.get(key);
}

async function decode(embedded) {
  const packed = Uint8Array.from(atob(embedded.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const words = new DataView(await new Response(stream).arrayBuffer());
  const points = new Float64Array(3 * embedded.vertices);
  const sums = [0, 0, 0];
  for (let i = 0; i < points.length; i++) {
    sums[i % 3] = (sums[i % 3] + words.getUint16(2 * i, true)) & 0xffff;
    points[i] = (sums[i % 3] / constants.steps) * embedded.extent + embedded.origin[i % 3];
  }
  const faces = new Uint16Array(3 * embedded.faces);
  for (let i = 0, sum = 0; i < faces.length; i++) {
    sum = (sum + words.getUint16(2 * (points.length + i), true)) & 0xffff;
    faces[i] = sum;
  }
  return { points, faces, normals: normalsOf(points, faces), whole: embedded.whole, size: diagonal(points) };
}

function diagonal(points) {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  points.forEach((value, i) => {
    low[i % 3] = Math.min(low[i % 3], value);
    high[i % 3] = Math.max(high[i % 3], value);
  });
  return Math.hypot(...high.map((value, axis) => value - low[axis]));
}

/** Unit normals, three numbers a face; 0 for a face without area. */
function normalsOf(points, faces) {
  const normals = new Float32Array(faces.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const u = [0, 1, 2].map((i) => points[b + i] - points[a + i]);
    const v = [0, 1, 2].map((i) => points[c + i] - points[a + i]);
    const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const length = Math.hypot(...n) || 1;
    n.forEach((value, i) => (normals[f + i] = value / length));
  }
  return normals;
}

/** How bright each face is, from 0 to 1; both of its sides are lit alike. */
function brightness(mesh, pose) {
  const [azimuth, elevation, theta, distance] = pose;
  const r = rotation(azimuth, elevation, theta);
  const strength = Math.hypot(...constants.light);
  // Camera to object space, by the transpose of the rotation.
  const lamp = [0, 1, 2].map((i) => constants.light.reduce((sum, v, row) => sum + v * r[3 * row + i], 0) / strength);
  const eye = [6, 7, 8].map((i) => distance * r[i]);
  const values = new Float32Array(mesh.faces.length / 3);
  for (let f = 0; f < values.length; f++) {
    const corner = 3 * mesh.faces[3 * f];
    let towardsEye = 0;
    let cosine = 0;
    for (let i = 0; i < 3; i++) {
      const n = mesh.normals[3 * f + i];
      towardsEye += n * (eye[i] - mesh.points[corner + i]);
      cosine += n * lamp[i];
    }
    if (towardsEye < 0) cosine = -cosine;
    values[f] = constants.ambient + ((1 - constants.ambient) * (1 + cosine)) / 2;
  }
  return values;
}

let kept = { face: new Int32Array(0), nearness: new Float32Array(0), image: null };

/** Of so many pixels: the face, -1 for none, and 1 / depth, which is linear in the picture; used again and again. */
function buffers(count) {
  if (kept.face.length < count) kept = { ...kept, face: new Int32Array(count), nearness: new Float32Array(count) };
  return { face: kept.face.subarray(0, count).fill(-1), nearness: kept.nearness.subarray(0, count).fill(0) };
}

/** The pixels, all transparent, of a part of a canvas, which the next call takes again. */
function pixelsOf({ canvas: { width, height } }, left, top, columns, rows) {
  if (kept.image?.width !== width || kept.image.height !== height) kept.image = new ImageData(width, height);
  const pixels = new Uint32Array(kept.image.data.buffer); // red is the lowest byte wherever browsers run
  for (let row = top, start = top * width + left; row < top + rows; row++, start += width) {
    pixels.fill(0, start, start + columns);
  }
  return pixels;
}

/** The part of the picture that the mesh can cover, in whole pixels. */
function extent({ x, y, depth }, width, height) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < x.length; i++) {
    if (depth[i] <= 0) continue;
    left = Math.min(left, x[i]);
    right = Math.max(right, x[i]);
    top = Math.min(top, y[i]);
    bottom = Math.max(bottom, y[i]);
  }
  return [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top)), Math.min(width, Math.ceil(right)), Math.min(height, Math.ceil(bottom))];
}

/** The face seen in each pixel of the part of the picture that the mesh can cover; null if it covers none. The next call uses the arrays again. */
function rasterise(faces, view, width, height) {
  const { x, y, depth } = view;
  const [left, top, right, bottom] = extent(view, width, height);
  if (!(left < right && top < bottom)) return null;
  const [columns, rows] = [right - left, bottom - top];
  const { face, nearness } = buffers(columns * rows);
  /** The first pixel whose centre is not before a position; a pixel is drawn if its centre is covered. */
  const firstRow = (position) => Math.min(Math.max(Math.ceil(position - 0.5), top), bottom) | 0;
  const firstColumn = (position) => Math.min(Math.max(Math.ceil(position - 0.5), left), right) | 0;
  for (let f = 0, number = 0; f < faces.length; f += 3, number++) {
    // From top to bottom.
    let a = faces[f];
    let b = faces[f + 1];
    let c = faces[f + 2];
    if (depth[a] <= 0 || depth[b] <= 0 || depth[c] <= 0) continue;
    let swapped = a;
    if (y[b] < y[a]) { a = b; b = swapped; }
    swapped = b;
    if (y[c] < y[b]) { b = c; c = swapped; }
    swapped = a;
    if (y[b] < y[a]) { a = b; b = swapped; }
    const ax = x[a];
    const ay = y[a];
    const bx = x[b];
    const by = y[b];
    const cx = x[c];
    const cy = y[c];
    const first = firstRow(ay);
    const last = firstRow(cy);
    if (first === last || firstColumn(Math.min(ax, bx, cx)) === firstColumn(Math.max(ax, bx, cx))) continue;
    const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
    if (area === 0) continue;
    const an = 1 / depth[a];
    const bn = 1 / depth[b];
    const cn = 1 / depth[c];
    const slopeX = ((bn - an) * (cy - ay) - (cn - an) * (by - ay)) / area;
    const slopeY = ((cn - an) * (bx - ax) - (bn - an) * (cx - ax)) / area;
    // Where an edge crosses a row depends on the edge alone: neighbours share no pixel and leave no gap.
    const long = (cx - ax) / (cy - ay);
    const upper = (bx - ax) / (by - ay);
    const lower = (cx - bx) / (cy - by);
    const middle = firstRow(by);
    for (let row = first; row < last; row++) {
      const height = row + 0.5;
      const one = ax + (height - ay) * long;
      const other = row < middle ? ax + (height - ay) * upper : bx + (height - by) * lower;
      const end = firstColumn(area > 0 ? other : one);
      let column = firstColumn(area > 0 ? one : other);
      let near = an + (column + 0.5 - ax) * slopeX + (height - ay) * slopeY;
      let pixel = (row - top) * columns + column - left;
      for (; column < end; column++, pixel++, near += slopeX) {
        if (near > nearness[pixel]) {
          nearness[pixel] = near;
          face[pixel] = number;
        }
      }
    }
  }
  return { left, top, columns, rows, face, nearness };
}

/** Paint shaded faces and the outline of what `rasterise` found; `line` is the outline's width in pixels. */
function paintMesh(context, mesh, raster, pose, show, line) {
  const { left, top, columns, rows } = raster;
  const pixels = pixelsOf(context, left, top, columns, rows);
  const colors = faceColors(mesh, pose);
  if (show.faces) paintFaces(pixels, context.canvas, raster, colors);
  if (show.outline) paintOutline(pixels, context.canvas, raster, mesh, colors[colors.length - 1], line);
  context.putImageData(kept.image, 0, 0, left, top, columns, rows);
}

function paintFaces(pixels, { width }, { face, left, top, columns, rows }, colors) {
  const opacity = Math.round(255 * constants.faceOpacity) * 2 ** 24;
  for (let row = 0, pixel = 0; row < rows; row++) {
    let target = (top + row) * width + left;
    for (let column = 0; column < columns; column++, pixel++, target++) {
      if (face[pixel] >= 0) pixels[target] = colors[face[pixel]] + opacity;
    }
  }
}

/** Paint where the mesh ends, and creases and steps inside it, which are lighter. */
function paintOutline(pixels, { width, height }, { face, nearness, left, top, columns, rows }, { normals, size }, color, line) {
  const [outline, crease] = [color + 0xff000000, color + Math.round(255 * constants.edgeOpacity) * 2 ** 24];
  const flat = Math.cos(constants.crease);
  const deep = 2 * constants.depthTolerance * size;

  /** Whether the mesh ends there; where the picture ends it is cut, and has no outline. */
  const ends = (column, row) => {
    if (column >= 0 && column < columns && row >= 0 && row < rows) return face[row * columns + column] < 0;
    return left + column >= 0 && left + column < width && top + row >= 0 && top + row < height;
  };

  for (let row = 0, pixel = 0; row < rows; row++) {
    const isInRows = row >= line && row < rows - line;
    let target = (top + row) * width + left;
    for (let column = 0; column < columns; column++, pixel++, target++) {
      const f = face[pixel];
      if (f < 0) continue;
      const isOutline = isInRows && column >= line && column < columns - line
        ? (face[pixel + line] | face[pixel - line] | face[pixel + line * columns] | face[pixel - line * columns]) < 0
        : ends(column + line, row) || ends(column - line, row) || ends(column, row + line) || ends(column, row - line);
      if (isOutline) {
        pixels[target] = outline;
        continue;
      }
      const right = column + 1 < columns ? face[pixel + 1] : f;
      const below = row + 1 < rows ? face[pixel + columns] : f;
      if (right === f && below === f) continue;
      // An edge is seen where the neighbour's face lies farther by more than `deep`, or meets this one at an angle.
      // It stands here twice, and names come one by one, because a frame is mostly this.
      const x = normals[3 * f];
      const y = normals[3 * f + 1];
      const z = normals[3 * f + 2];
      const n = nearness[pixel];
      if (right !== f && right >= 0) {
        const m = nearness[pixel + 1];
        const cosine = x * normals[3 * right] + y * normals[3 * right + 1] + z * normals[3 * right + 2];
        if (Math.abs(n - m) > deep * n * m || Math.abs(cosine) < flat) pixels[target] = crease;
      }
      if (below !== f && below >= 0) {
        const m = nearness[pixel + columns];
        const cosine = x * normals[3 * below] + y * normals[3 * below + 1] + z * normals[3 * below + 2];
        if (Math.abs(n - m) > deep * n * m || Math.abs(cosine) < flat) pixels[target] = crease;
      }
    }
  }
}

/** The shaded color of each face as 0xbbggrr, and at last that of the mesh itself. */
function faceColors(mesh, pose) {
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(constants.meshColor.slice(i, i + 2), 16));
  const light = brightness(mesh, pose);
  const colors = new Uint32Array(light.length + 1);
  for (let f = 0; f <= light.length; f++) {
    const shade = f < light.length ? light[f] : 1;
    colors[f] = Math.round(red * shade) + Math.round(green * shade) * 2 ** 8 + Math.round(blue * shade) * 2 ** 16;
  }
  return colors;
}

/** Paint the object's axes, each `length` units of the mesh long; `unit` is the width of a thin line. */
function paintAxes(context, pose, length, unit) {
  const view = project([0, 0, 0, length, 0, 0, 0, length, 0, 0, 0, length], pose);
  const farthestFirst = [1, 2, 3].sort((one, other) => view.depth[other] - view.depth[one]);
  context.lineCap = "round";
  for (const i of farthestFirst) {
    const name = "xyz"[i - 1];
    for (const [color, width] of [["#fffc", 4.5], [constants.axisColors[name], 2.6]]) {
      context.beginPath();
      context.moveTo(view.x[0], view.y[0]);
      context.lineTo(view.x[i], view.y[i]);
      context.strokeStyle = color;
      context.lineWidth = width * unit;
      context.stroke();
    }
    context.beginPath();
    context.arc(view.x[i], view.y[i], 9 * unit, 0, 2 * Math.PI);
    context.fillStyle = constants.axisColors[name];
    context.fill();
    context.strokeStyle = "#fff";
    context.lineWidth = unit;
    context.stroke();
    context.fillStyle = "#fff";
    context.font = `700 ${12 * unit}px sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(name, view.x[i], view.y[i]);
  }
}

