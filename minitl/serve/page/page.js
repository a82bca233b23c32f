// Pictures are sent one by one, a few at a time; the server puts those of all clients together.
// Whatever comes from a file or from the server is put in as text, never as HTML.
"use strict";

const AT_ONCE = 4;
const SHOWN = 5; // classes per picture
const byId = (id) => document.getElementById(id);
const results = byId("results");
const rows = []; // {name, answer} in order
let limits = { file_bytes: Infinity };
let classes = [];
let waiting = [];
let running = 0;
let generation = 0; // "Clear" begins another: late answers of the one before are dropped

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (p) => (p >= 0.9995 && p < 1 ? "> 99.9 %" : `${(100 * p).toFixed(1)} %`);

async function post(address, file) {
  const response = await fetch(address, { method: "POST", body: file });
  if (response.ok) return response;
  let text = `the server answered ${response.status}`;
  try {
    text = (await response.json()).error || text;
  } catch { /* no sentence came with it */ }
  const error = new Error(text);
  error.again = response.status === 503;
  throw error;
}

async function patiently(address, file) {
  for (let turn = 0; ; turn += 1) {
    try {
      return await post(address, file);
    } catch (error) {
      if (!error.again || turn === 20) throw error;
      await new Promise((done) => setTimeout(done, 500 * (1 + Math.random())));
    }
  }
}

function card(file) {
  const item = element("li");
  const picture = element("div", "picture");
  const frame = element("div", "frame");
  const image = element("img");
  image.alt = file.name;
  image.src = URL.createObjectURL(file);
  image.addEventListener("error", () => {
    frame.replaceWith(element("p", "none", "This browser cannot show the picture."));
  });
  frame.append(image);
  picture.append(frame);
  const words = element("div", "words");
  const answer = element("p", "answer", "…");
  words.append(answer, element("h3", "", file.name));
  item.append(picture, words);
  results.append(item);
  return { item, frame, words, answer };
}

function showAnswer(parts, file, answer) {
  parts.answer.textContent = `${answer.class} · ${percent(answer.probability)}`;
  if (answer.unlike_training) {
    const text = "Unlike the pictures that the model was trained on: do not trust the number.";
    parts.words.append(element("p", "unlike", text));
  }
  const bars = element("ul", "bars");
  const sorted = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  for (const [name, p] of sorted.slice(0, SHOWN)) {
    const line = element("li");
    const meter = element("meter");
    meter.min = 0;
    meter.max = 1;
    meter.value = p;
    meter.setAttribute("aria-label", name);
    line.append(element("span", "name", name), element("span", "", percent(p)), meter);
    bars.append(line);
  }
  if (sorted.length > SHOWN) bars.append(element("li", "", `and ${sorted.length - SHOWN} more`));
  const button = element("button", "", "Where it looked");
  button.type = "button";
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => explain(parts, file, answer.class, button));
  parts.words.append(bars, button);
}

async function explain(parts, file, name, button) {
  const there = parts.frame.querySelector(".heat");
  if (there) {
    there.hidden = !there.hidden;
    button.setAttribute("aria-pressed", String(!there.hidden));
    return;
  }
  button.disabled = true;
  try {
    const response = await patiently(`api/explain?class=${encodeURIComponent(name)}`, file);
    const heat = element("img", "heat");
    heat.alt = `what spoke for ${name}, in red and yellow`;
    heat.src = URL.createObjectURL(await response.blob());
    parts.frame.append(heat);
    button.setAttribute("aria-pressed", "true");
  } catch (error) {
    parts.words.append(element("p", "error", error.message));
  }
  button.disabled = false;
}

async function classify({ file, parts, row, of }) {
  try {
    if (file.size > limits.file_bytes) {
      throw new Error(`The file is larger than ${Math.round(limits.file_bytes / 1e6)} MB.`);
    }
    const response = await patiently(`api/predict?errors=inline&name=${encodeURIComponent(file.name)}`, file);
    const answer = (await response.json()).pictures[0];
    if (of !== generation) return;
    if (answer.error) throw new Error(answer.error);
    row.answer = answer;
    showAnswer(parts, file, answer);
  } catch (error) {
    if (of !== generation) return;
    row.error = error.message;
    parts.answer.textContent = "No answer";
    parts.words.append(element("p", "error", error.message));
  }
}

function tell() {
  const done = rows.filter((row) => row.answer || row.error).length;
  const failed = rows.filter((row) => row.error).length;
  byId("status").textContent = rows.length
    ? `${done} of ${rows.length} pictures` + (failed ? `, ${failed} without an answer` : "")
    : "";
  byId("save").disabled = done === 0;
  byId("clear").disabled = rows.length === 0;
}

async function next() {
  if (running >= AT_ONCE || waiting.length === 0) return;
  running += 1;
  await classify(waiting.shift());
  running -= 1;
  tell();
  next();
}

function take(files) {
  for (const file of files) {
    const row = { name: file.name };
    rows.push(row);
    waiting.push({ file, parts: card(file), row, of: generation });
  }
  tell();
  for (let i = 0; i < AT_ONCE; i += 1) next();
}

function cell(text) {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save() {
  const lines = [["name", "class", ...classes, "error"]];
  for (const row of rows) {
    const p = row.answer ? classes.map((name) => row.answer.probabilities[name].toFixed(6)) : classes.map(() => "");
    lines.push([row.name, row.answer ? row.answer.class : "", ...p, row.error || ""]);
  }
  const text = lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "classes.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

function clear() {
  generation += 1;
  waiting = [];
  rows.length = 0;
  for (const image of results.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  results.replaceChildren();
  tell();
  byId("files").focus();
}

const drop = byId("drop");
byId("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = "";
});
for (const kind of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
byId("save").addEventListener("click", save);
byId("clear").addEventListener("click", clear);

fetch("api/model").then((response) => response.json()).then((model) => {
  limits = model;
  classes = model.classes;
  byId("about").textContent = `${model.name} tells ${classes.length} classes apart: ${classes.join(", ")}.`;
}).catch(() => {
  byId("about").textContent = "The server does not answer: is it still running?";
});
