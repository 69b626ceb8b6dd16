"use strict";
// Marks are stored in the order of the page: the next question follows the last mark. Every change is written
// twice: to localStorage at once, and to IndexedDB with strict durability, which survives the end of the browser itself.
const content = JSON.parse(document.getElementById("content").textContent);
const at = (id) => document.getElementById(id);
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", x: "both bad", c: "cannot tell" };
const FOLDED = { p: "passage", g: "gold", e: "evidence" };
let state = null;
let shownAt = 0;
let written = Promise.resolve();

const nameOf = (marker) => `marks ${content.page} ${marker}`;
const LAST = `marker ${content.page}`;

function local(action) {
  try { return action(window.localStorage); } catch (error) { return null; }
}

function database() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("marks", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("states");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function inDatabase(mode, action) {
  const opened = await database();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = opened.transaction("states", mode, { durability: "strict" });
      const request = action(transaction.objectStore("states"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    opened.close();
  }
}

function save() {
  state.revision += 1;
  const copy = JSON.stringify(state);
  const marker = state.marker;
  const name = nameOf(marker);
  const count = state.marks.length;
  const stored = local((storage) => { storage.setItem(name, copy); storage.setItem(LAST, marker); return true; });
  at("saved").textContent = "saving";
  written = written.then(() => inDatabase("readwrite", (store) => { store.put(marker, LAST); return store.put(copy, name); })).then(() => true, () => stored);
  written.then((safe) => {
    if (copy !== JSON.stringify(state)) return;
    at("saved").textContent = safe ? `saved: ${count}` : "This browser stores nothing: download your marks before you close the page.";
  });
}

async function load(marker) {
  const name = nameOf(marker);
  const copies = [local((storage) => storage.getItem(name)), await inDatabase("readonly", (store) => store.get(name)).catch(() => null)];
  const states = copies.filter(Boolean).map((copy) => JSON.parse(copy)).sort((a, b) => b.revision - a.revision);
  return states[0] || { marker, revision: 0, marks: [] };
}

function fold(id, text) {
  at(id).hidden = !text;
  at(id).open = false;
  at(id).querySelector(".text").textContent = text || "";
}

function show() {
  const count = state.marks.length;
  const total = content.items.length;
  const item = content.items[count];
  at("start").hidden = true;
  at("tools").hidden = false;
  at("task").hidden = !item;
  at("done").hidden = Boolean(item);
  at("undo").disabled = count === 0;
  at("progress").max = Math.max(1, total);
  at("progress").value = count;
  at("progress-text").textContent = `${count} of ${total} marked`;
  if (item) {
    at("question").textContent = item.question;
    for (const [number, side] of ["left", "right"].entries()) at(side).textContent = item.sides[number].text || "(no answer)";
    for (const id of Object.values(FOLDED)) fold(id, item[id]);
  }
  shownAt = performance.now();
  window.scrollTo(0, 0);
  at(item ? "question" : "done-title").focus({ preventScroll: true });
}

function mark(choice) {
  const item = content.items[state.marks.length];
  if (!item) return;
  const side = { left: 0, right: 1 }[choice];
  const seconds = Math.round((performance.now() - shownAt) / 100) / 10;
  const chosen = side === undefined ? choice : item.sides[side].name;
  state.marks.push({ item: item.item, choice: chosen, at: new Date().toISOString(), seconds });
  save();
  show();
}

function undo() {
  if (!state.marks.length) return;
  state.marks.pop();
  save();
  show();
}

function download() {
  const file = { format: "tunewright marks 1", page: content.page, marker: state.marker, marks: state.marks };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }));
  link.download = `marks-${state.marker.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function start(event) {
  event.preventDefault();
  const marker = at("marker").value.trim();
  if (!marker) return;
  state = await load(marker);
  save();
  show();
}

// A downloaded file holds marks of the first questions in order; anything else would assign them to the wrong questions.
async function upload() {
  try {
    const file = JSON.parse(await at("upload").files[0].text());
    const fits = file.page === content.page && file.marks.every((mark, number) => mark.item === content.items[number].item);
    if (!fits) throw new Error("it holds marks of another page");
    const stored = await load(file.marker);
    state = stored.marks.length > file.marks.length ? stored : { ...stored, marks: file.marks };
    save();
    show();
  } catch (error) {
    at("saved").textContent = `This file cannot be used: ${error.message}`;
  }
}

function pressed(event) {
  const typing = event.target.matches("input:not([type=checkbox])");
  if (!state || typing || !at("keys").checked || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (KEYS[key]) mark(KEYS[key]);
  else if (FOLDED[key] && !at(FOLDED[key]).hidden) at(FOLDED[key]).open = !at(FOLDED[key]).open;
  else if (key === "u") undo();
  else if (key === "d") download();
  else return;
  event.preventDefault();
}

at("start").addEventListener("submit", start);
at("upload").addEventListener("change", upload);
at("undo").addEventListener("click", undo);
at("download").addEventListener("click", download);
at("choices").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) mark(button.dataset.choice);
});
document.addEventListener("keydown", pressed);
// A second tab of the same marker: the newer marks apply in both.
window.addEventListener("storage", (event) => {
  if (!state || event.key !== nameOf(state.marker) || !event.newValue) return;
  const other = JSON.parse(event.newValue);
  if (other.revision > state.revision) { state = other; show(); }
});
// The name of the last marker is filled in, so that a single key continues after the tab was closed.
function remember(marker) {
  if (marker && !at("marker").value) at("marker").value = marker;
}

remember(local((storage) => storage.getItem(LAST)));
inDatabase("readonly", (store) => store.get(LAST)).then(remember, () => null);
at("marker").focus();
