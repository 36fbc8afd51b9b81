"use strict";
/* What the page asks of its server: every request carries the token that came with the page. */

const { token, review: beginsWithReview, poseFields } = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, ...options.headers };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server does not answer; is the command still running?");
  }
  if (!response.ok) throw new Error((await response.text()) || response.statusText);
  return response;
}

const get = async (path, query = {}) => (await ask(`${path}?${new URLSearchParams(query)}`)).json();

const post = async (path, body) =>
  (await ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } })).json();

/** A picture as it is stored: no orientation is applied, for box and pose refer to its pixels. */
async function pictureOf(number) {
  try {
    const response = await ask(`/api/picture/${number}`);
    return await createImageBitmap(await response.blob(), { imageOrientation: "none" });
  } catch (error) {
    throw new Error(`The picture cannot be shown: ${error.message}`);
  }
}

/** The mesh of a CAD model, null where there is none; each is fetched once. */
async function modelOf(category, index) {
  if (index === null) return null;
  const key = `${category}/${index}`;
  if (!Object.hasOwn(meshes, key)) {
    try {
      meshes[key] = await get(`/api/mesh/${encodeURIComponent(category)}/${index}`);
    } catch {
      return null;
    }
  }
  return meshOf(key);
}

const thumbnails = new Map();

function thumbnailOf(category, index) {
  const key = `${category}/${index}`;
  if (!thumbnails.has(key)) {
    const asked = ask(`/api/thumbnail/${encodeURIComponent(category)}/${index}`);
    thumbnails.set(key, asked.then(async (response) => URL.createObjectURL(await response.blob())));
  }
  return thumbnails.get(key);
}

/** Say something to who looks and to who listens. */
function say(text, isWrong = false) {
  byId("said").textContent = text;
  byId("said").classList.toggle("wrong", isWrong);
}

/** A handler whose errors are said to whoever looks. */
function told(action) {
  return async () => {
    try {
      await action();
    } catch (error) {
      say(error.message, true);
    }
  };
}
