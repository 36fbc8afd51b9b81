"use strict";
/* One object on a canvas: the projection of processing/geometry.py and the z-buffer of processing/raster.py.

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

/** The mesh of a key, as processing/preview_meshes.py embeds it; resolves to null where there is none. */
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

const firstCentre = (position, low, high) => Math.min(Math.max(Math.ceil(position - 0.5), low), high);

let kept = { face: new Int32Array(0), nearness: new Float32Array(0) };

/** Of so many pixels: the face, -1 for none, and 1 / depth, which is linear in the picture; used again and again. */
function buffers(count) {
  if (kept.face.length < count) kept = { face: new Int32Array(count), nearness: new Float32Array(count) };
  return { face: kept.face.subarray(0, count).fill(-1), nearness: kept.nearness.subarray(0, count).fill(0) };
}

/** The face seen in each pixel of the part of the picture that the mesh can cover; null if it covers none. The next call uses the arrays again. */
function rasterise(faces, view, width, height) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < view.x.length; i++) {
    if (view.depth[i] <= 0) continue;
    left = Math.min(left, view.x[i]);
    right = Math.max(right, view.x[i]);
    top = Math.min(top, view.y[i]);
    bottom = Math.max(bottom, view.y[i]);
  }
  [left, top] = [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top))];
  [right, bottom] = [Math.min(width, Math.ceil(right)), Math.min(height, Math.ceil(bottom))];
  if (!(left < right && top < bottom)) return null;
  const [columns, rows] = [right - left, bottom - top];
  const { face, nearness } = buffers(columns * rows);
  for (let f = 0; f < faces.length; f += 3) {
    let [a, b, c] = [faces[f], faces[f + 1], faces[f + 2]];
    if (view.depth[a] <= 0 || view.depth[b] <= 0 || view.depth[c] <= 0) continue;
    // From top to bottom.
    if (view.y[b] < view.y[a]) [a, b] = [b, a];
    if (view.y[c] < view.y[b]) [b, c] = [c, b];
    if (view.y[b] < view.y[a]) [a, b] = [b, a];
    const [ax, ay, an] = [view.x[a], view.y[a], 1 / view.depth[a]];
    const [bx, by, bn] = [view.x[b], view.y[b], 1 / view.depth[b]];
    const [cx, cy, cn] = [view.x[c], view.y[c], 1 / view.depth[c]];
    const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
    if (area === 0) continue;
    const slopeX = ((bn - an) * (cy - ay) - (cn - an) * (by - ay)) / area;
    const slopeY = ((cn - an) * (bx - ax) - (bn - an) * (cx - ax)) / area;
    const last = firstCentre(cy, top, bottom);
    for (let row = firstCentre(ay, top, bottom); row < last; row++) {
      const y = row + 0.5;
      const long = ax + ((y - ay) / (cy - ay)) * (cx - ax);
      const short = y < by ? ax + ((y - ay) / (by - ay)) * (bx - ax) : bx + ((y - by) / (cy - by)) * (cx - bx);
      const end = firstCentre(Math.max(long, short), left, right);
      let column = firstCentre(Math.min(long, short), left, right);
      let near = an + (column + 0.5 - ax) * slopeX + (y - ay) * slopeY;
      let pixel = (row - top) * columns + column - left;
      for (; column < end; column++, pixel++, near += slopeX) {
        if (near > nearness[pixel]) {
          nearness[pixel] = near;
          face[pixel] = f / 3;
        }
      }
    }
  }
  return { left, top, columns, rows, face, nearness };
}

/** Paint shaded faces and the outline of what `rasterise` found; `line` is the outline's width in pixels. */
function paintMesh(context, mesh, raster, pose, show, line) {
  const { face, nearness, columns, rows, left, top } = raster;
  const { width, height } = context.canvas;
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer); // red is the lowest byte wherever browsers run
  const colors = faceColors(mesh, pose);
  const [opaque, creased] = [0xff000000, Math.round(255 * constants.edgeOpacity) * 2 ** 24];
  const filled = show.faces ? Math.round(255 * constants.faceOpacity) * 2 ** 24 : 0;
  const full = colors[colors.length - 1];
  const flat = Math.cos(constants.crease);
  const deep = 2 * constants.depthTolerance * mesh.size;
  const n = mesh.normals;

  /** Whether an edge is to be seen between two neighbouring pixels that show different faces. */
  const isEdge = (one, other) => {
    const [f, g] = [3 * face[one], 3 * face[other]];
    if (Math.abs(n[f] * n[g] + n[f + 1] * n[g + 1] + n[f + 2] * n[g + 2]) < flat) return true;
    return Math.abs(1 / nearness[one] - 1 / nearness[other]) > deep;
  };
  /** Whether the mesh ends there; where the picture ends it is cut, and has no outline. */
  const ends = (column, row) => {
    if (column >= 0 && column < columns && row >= 0 && row < rows) return face[row * columns + column] < 0;
    return left + column >= 0 && left + column < width && top + row >= 0 && top + row < height;
  };

  for (let row = 0, pixel = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++, pixel++) {
      const f = face[pixel];
      if (f < 0) continue;
      let color = colors[f] + filled;
      if (show.outline) {
        const inside = column >= line && column < columns - line && row >= line && row < rows - line;
        const isOutline = inside
          ? face[pixel + line] < 0 || face[pixel - line] < 0 || face[pixel + line * columns] < 0 || face[pixel - line * columns] < 0
          : ends(column + line, row) || ends(column - line, row) || ends(column, row + line) || ends(column, row - line);
        if (isOutline) {
          color = full + opaque;
        } else {
          const [right, below] = [pixel + 1, pixel + columns];
          if ((column + 1 < columns && face[right] >= 0 && face[right] !== f && isEdge(pixel, right))
            || (row + 1 < rows && face[below] >= 0 && face[below] !== f && isEdge(pixel, below))) {
            color = full + creased;
          }
        }
      }
      pixels[pixel] = color;
    }
  }
  context.putImageData(image, left, top);
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

