"use strict";
// Each photo is a request of its own, a few at a time: each answer is shown as soon as it arrives,
// and the service batches photos that wait at the same time.
const AT_A_TIME = 4;
const TRIES = 4; // A full service says 503 and when to come again.
const byId = (id) => document.getElementById(id);
const waiting = [];
let active = 0;
let done = 0;
let all = 0;
let most = Infinity;
let explains = true;

function percent(probability) {
  const value = Math.min(probability, 1) * 100;
  if (value < 1) return "under 1 %";
  return value > 99 ? "over 99 %" : `${Math.round(value)} %`;
}

function show(entry, answer) {
  const shown = { uncertain: "not sure", "none of these": "none of these; the nearest:" };
  const best = answer.top.length ? answer.top[0].category : "";
  entry.best = best;
  entry.part(".category").textContent = answer.reason ? "" : shown[answer.category] || answer.category;
  entry.part(".reason").textContent = answer.reason ? `Cannot be read: ${answer.reason}` : "";
  entry.part(".guesses").replaceChildren(...answer.top.map(guess));
  entry.part(".why").hidden = Boolean(answer.reason) || !explains;
  entry.part(".again").hidden = true;
  entry.item.removeAttribute("aria-busy");
}

function guess({ category, probability }) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = category;
  const number = document.createElement("span");
  number.className = "percent";
  number.textContent = percent(probability);
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.setAttribute("aria-hidden", "true"); // The number says the same.
  const filled = document.createElement("span");
  filled.style.width = `${Math.min(probability, 1) * 100}%`;
  bar.append(filled);
  item.append(name, number, bar);
  return item;
}

function fail(entry, reason) {
  entry.part(".category").textContent = "";
  entry.part(".reason").textContent = reason;
  entry.part(".again").hidden = false;
  entry.item.removeAttribute("aria-busy");
}

const pause = (seconds) => new Promise((go) => setTimeout(go, seconds * 1000));

async function send(address, file) {
  for (let attempt = 1; ; attempt += 1) {
    const body = new FormData();
    body.append("photos", file, file.name || "pasted photo");
    const response = await fetch(address, { method: "POST", body });
    const later = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || attempt === TRIES) return response;
    await pause(Math.min(later || 1, 10));
  }
}

async function predict(entry) {
  if (entry.file.size > most) {
    show(entry, { category: "", top: [], reason: `larger than ${Math.round(most / 1e6)} MB` });
    return;
  }
  try {
    await entry.file.slice(0, 1).arrayBuffer();
  } catch {
    fail(entry, "This file cannot be opened; choose it again.");
    return;
  }
  try {
    const response = await send("predict", entry.file);
    const answer = await response.json();
    if (answer.photos && answer.photos.length) show(entry, answer.photos[0]);
    else fail(entry, answer.reason || `The service answered ${response.status}.`);
  } catch {
    fail(entry, "The service does not answer. Is it running?");
  }
}

function showState() {
  const left = all - done;
  byId("results").hidden = all === 0;
  const photos = all === 1 ? "1 photo" : `${all} photos`;
  const failed = document.querySelectorAll(".reason:not(:empty)").length;
  const but = failed ? `, ${failed} without an answer` : "";
  byId("state").textContent = (left ? `${done} of ${photos} done` : `${photos} done`) + but;
}

function next() {
  while (active < AT_A_TIME && waiting.length) {
    const entry = waiting.shift();
    active += 1;
    predict(entry).finally(() => {
      active -= 1;
      if (entry.item.isConnected) done += 1;
      showState();
      next();
    });
  }
}

function queue(entry) {
  entry.item.setAttribute("aria-busy", "true");
  entry.part(".reason").textContent = "";
  entry.part(".category").textContent = "…";
  entry.part(".again").hidden = true;
  waiting.push(entry);
}

function add(files) {
  for (const file of files) {
    const item = byId("photo").content.firstElementChild.cloneNode(true);
    const entry = { file, item, best: "", part: (name) => item.querySelector(name) };
    const name = file.name || "pasted photo";
    entry.part(".file").textContent = name;
    entry.part(".why").setAttribute("aria-label", `Why? ${name}`);
    entry.part(".again").setAttribute("aria-label", `Try again: ${name}`);
    picture(entry);
    entry.part(".why").addEventListener("click", () => explain(entry));
    entry.part(".again").addEventListener("click", () => {
      item.focus(); // The button goes.
      done -= 1;
      queue(entry);
      showState();
      next();
    });
    byId("photos").append(item);
    all += 1;
    queue(entry);
  }
  showState();
  next();
}

function picture(entry) {
  const image = entry.part(".picture img");
  const address = URL.createObjectURL(entry.file);
  image.addEventListener("load", () => URL.revokeObjectURL(address));
  image.addEventListener("error", () => {
    URL.revokeObjectURL(address);
    image.hidden = true;
    entry.part(".none").hidden = false;
  });
  image.src = address;
}

async function explain(entry) {
  const button = entry.part(".why");
  const figure = entry.part(".explained");
  const caption = entry.part("figcaption");
  if (!figure.hidden) {
    if (button.getAttribute("aria-disabled") === "true") return;
    figure.hidden = true;
    button.setAttribute("aria-expanded", "false");
    return;
  }
  button.setAttribute("aria-disabled", "true");
  caption.textContent = "Computing the heat map…";
  figure.hidden = false;
  try {
    const response = await send(`explain?category=${encodeURIComponent(entry.best)}`, entry.file);
    if (!response.ok) throw new Error((await response.json()).reason);
    const image = entry.part(".explained img");
    const address = URL.createObjectURL(await response.blob());
    image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    image.src = address;
    image.alt = `Heat map over the photo: ${entry.best}`;
    caption.textContent = `The brighter an area, the more it contributes to ${entry.best} (Grad-CAM).`;
  } catch (error) {
    entry.part(".explained img").removeAttribute("src");
    caption.textContent = `No explanation: ${error.message}`;
  }
  button.removeAttribute("aria-disabled");
  button.setAttribute("aria-expanded", "true");
}

async function showModel() {
  const response = await fetch("labels").catch(() => null);
  if (response && response.ok) {
    const known = await response.json();
    most = known.max_photo_bytes;
    explains = known.explains;
    byId("model").textContent = `Model ${known.model}. Categories: ${known.labels.join(", ")}.`;
    return;
  }
  const { reason } = response ? await response.json().catch(() => ({})) : {};
  byId("model").textContent = reason ? `Not yet: ${reason}.` : "The service does not answer.";
  await pause(1);
  showModel();
}

for (const [button, input] of [["choose", "files"], ["photograph", "camera"]]) {
  byId(button).addEventListener("click", () => byId(input).click());
  byId(input).addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = ""; // So that the same photo can be chosen again.
  });
}
byId("clear").addEventListener("click", () => {
  waiting.length = 0;
  done = 0;
  all = 0;
  byId("photos").replaceChildren();
  showState();
  byId("choose").focus();
});
addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  add([...event.dataTransfer.files]);
});
showModel();
