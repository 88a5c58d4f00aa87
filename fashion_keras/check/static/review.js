"use strict";
const byId = (id) => document.getElementById(id);
const WORDS = { keep: "keep", drop: "drop", move: "move to " };
const DIGITS = "1234567890"; // Keys of the first classes.
let suspects = [];
let labels = [];
let at = 0;
let undoable = 0;
let last = Promise.resolve(); // One decision after the other: each is for the photo then shown.

const said = (one) => (one.action ? WORDS[one.action] + one.to : "");

function badge(element, one) {
  element.textContent = said(one);
  element.className = `badge ${one.action}`;
}

function tile(number) {
  const one = suspects[number];
  const item = byId("tile").content.firstElementChild.cloneNode(true);
  const button = item.querySelector("button");
  item.querySelector("img").src = `photo/${number}`;
  item.querySelector(".words").textContent = one.name;
  button.title = one.name;
  button.addEventListener("click", () => go(number));
  badge(item.querySelector(".badge"), one);
  return item;
}

function show() {
  const one = suspects[at];
  const image = byId("photo");
  if (image.dataset.number !== String(at)) {
    image.dataset.number = String(at);
    image.hidden = false;
    byId("none").hidden = true;
    image.src = `photo/${at}`;
    image.alt = `${one.name}, in class ${one.label}`;
    byId("to").value = "";
  }
  byId("name").textContent = one.name;
  byId("label").textContent = one.label;
  byId("reasons").textContent = one.reasons.join("; ");
  badge(byId("decision"), one);
  byId("keep").setAttribute("aria-pressed", String(one.action === "keep"));
  byId("drop-it").setAttribute("aria-pressed", String(one.action === "drop"));
  byId("suggested").hidden = !one.likelier;
  byId("suggested").querySelector("span").textContent = one.likelier;
  [...byId("classes").children].forEach((button, number) => {
    button.setAttribute("aria-disabled", String(labels[number] === one.label));
    button.setAttribute("aria-pressed", String(one.action === "move" && labels[number] === one.to));
  });
  byId("twins").hidden = !one.same.length;
  byId("twins").querySelector("ul").replaceChildren(...one.same.map(tile));
  [...byId("all").children].forEach((item, number) => {
    item.firstElementChild.setAttribute("aria-current", String(number === at));
    badge(item.querySelector(".badge"), suspects[number]);
  });
  const done = suspects.filter((each) => each.action).length;
  byId("state").textContent = `Photo ${at + 1} of ${suspects.length}; ${done} of ${suspects.length} reviewed`;
  byId("progress").max = suspects.length;
  byId("progress").value = done;
  byId("undo").setAttribute("aria-disabled", String(!undoable));
  byId("end").hidden = done < suspects.length;
}

function go(number) {
  at = (number + suspects.length) % suspects.length;
  show();
}

// The next photo without a decision, after the last one again from the first; else this one.
function next() {
  for (let step = 1; step <= suspects.length; step += 1) {
    const number = (at + step) % suspects.length;
    if (!suspects[number].action) return number;
  }
  return at;
}

async function load() {
  const response = await fetch("suspects");
  const known = await response.json();
  if (!response.ok) throw new Error(known.reason);
  suspects = known.suspects;
  labels = known.labels;
  undoable = known.undoable;
  byId("file").textContent = known.file;
  byId("command").textContent = known.command;
}

async function send(place, values) {
  let response;
  try {
    response = await fetch(place, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(values),
    });
  } catch {
    throw new Error("Not saved: the command has ended. Start it again; what was saved is kept.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.reason);
  return answer.number;
}

function act(action) {
  last = last.then(action).then(() => {
    byId("problem").textContent = "";
  }).catch((error) => {
    byId("problem").textContent = error.message;
  });
}

// The class of a move is named by a function: a key that was pressed early is for the next photo.
function decide(action, target = () => "") {
  act(async () => {
    const one = suspects[at];
    const to = target(one);
    if (action === "move" && to === one.label) throw new Error(`It is in ${to} already.`);
    await send("decide", { number: at, action, label: to });
    Object.assign(one, { action, to });
    undoable += 1;
    go(next());
    if (!byId("end").hidden) byId("end").scrollIntoView({ block: "nearest" });
  });
}

function suggestion(one) {
  if (!one.likelier) throw new Error("No other class is suggested for this photo.");
  return one.likelier;
}

function undo() {
  act(async () => {
    const number = await send("undo", {});
    await load(); // What was decided before, perhaps in another tab.
    go(number ?? at);
  });
}

function typed() {
  const text = byId("to").value.trim().toLowerCase();
  const found = labels.filter((label) => label.toLowerCase() === text);
  const begun = labels.filter((label) => label.toLowerCase().startsWith(text));
  const [only, ...more] = found.length ? found : begun;
  if (text && only && !more.length) {
    byId("to").blur();
    decide("move", () => only);
    return;
  }
  byId("problem").textContent = `No class, or more than one, begins with “${text}”.`;
}

function key(event) {
  const field = event.target.id === "to";
  if (event.key === "Escape" && field) event.target.blur();
  if (field || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !byId("keys").checked) return;
  const label = labels[DIGITS.indexOf(event.key)];
  const actions = {
    k: () => decide("keep"),
    d: () => decide("drop"),
    s: () => decide("move", suggestion),
    u: undo,
    m: () => byId("to").focus(),
    n: () => go(next()),
    ArrowLeft: () => go(at - 1),
    ArrowRight: () => go(at + 1),
  };
  const action = label ? () => decide("move", () => label) : actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || !suspects.length) return;
  event.preventDefault();
  action();
}

function classButton(label, number) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  if (number < DIGITS.length) {
    const hint = document.createElement("kbd");
    hint.textContent = DIGITS[number];
    button.append(" ", hint);
  }
  button.addEventListener("click", () => decide("move", () => label));
  return button;
}

async function start() {
  await load();
  byId("classes").replaceChildren(...labels.map(classButton));
  byId("labels").replaceChildren(...labels.map((label) => new Option(label, label)));
  byId("all").replaceChildren(...suspects.map((_, number) => tile(number)));
  byId("current").hidden = false;
  go(Math.max(0, suspects.findIndex((one) => !one.action)));
}

byId("keep").addEventListener("click", () => decide("keep"));
byId("drop-it").addEventListener("click", () => decide("drop"));
byId("suggested").addEventListener("click", () => decide("move", suggestion));
byId("undo").addEventListener("click", undo);
byId("back").addEventListener("click", () => go(at - 1));
byId("on").addEventListener("click", () => go(at + 1));
byId("move").addEventListener("submit", (event) => {
  event.preventDefault();
  typed();
});
byId("photo").addEventListener("error", () => {
  byId("photo").hidden = true;
  byId("none").hidden = false;
});
addEventListener("keydown", key);
act(start);
