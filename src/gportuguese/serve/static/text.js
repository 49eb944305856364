// The text that the reader and the model write in turn, and the mirror that shows who wrote what.
import { keep, recall } from "./state.js";

export const area = document.getElementById("text");
const mirror = document.getElementById("mirror");

let written = []; // [start, end) of what the model wrote
let history = []; // { text, written } before every change that is not typing
let typedBefore = "";
let colouring = null; // { text, spans: [{ start, end, className }] }

export function restore() {
  const marks = recall("written");
  const isWhole = Array.isArray(marks) && marks.every((mark) => Array.isArray(mark));
  setText(String(recall("text") ?? ""), isWhole ? marks : []);
}

export function setText(text, marks) {
  area.value = text;
  written = marks;
  changed();
}

export function append(text) {
  const start = area.value.length;
  const last = written.at(-1);
  if (last?.[1] === start) last[1] += text.length;
  else written.push([start, start + text.length]);
  area.value += text;
  changed();
}

function snapshot() {
  return { text: area.value, written: written.map((span) => [...span]) };
}

export function remember() {
  history.push(snapshot());
  return snapshot();
}

export function forget() {
  history.pop();
}

export function undo() {
  const { text, written: marks } = history.pop();
  setText(text, marks);
}

export function canUndo() {
  return history.length > 0;
}

// Shows these spans instead of the marks, as long as the text is the one they were made for.
export function colour(text, spans) {
  colouring = { text, spans };
  draw();
}

function changed() {
  typedBefore = area.value;
  keep(snapshot());
  draw();
}

// The mirror lies behind the textarea and gives it its height.
function draw() {
  const text = area.value;
  const marks = written.map(([start, end]) => ({ start, end, className: "" }));
  const parts = [];
  let before = 0;
  for (const { start, end, className } of colouring?.text === text ? colouring.spans : marks) {
    const mark = document.createElement("mark");
    mark.className = className;
    mark.textContent = text.slice(start, end);
    parts.push(text.slice(before, start), mark);
    before = end;
  }
  parts.push(text.slice(before), "\u200b"); // so that a last empty line has a height
  mirror.replaceChildren(...parts);
}

export function scrollToEnd() {
  mirror.querySelector("mark:last-of-type")?.scrollIntoView({ block: "nearest" });
}

// Marks stay before the place where somebody typed, and go after it.
export function noteTyping() {
  let same = 0;
  while (same < typedBefore.length && typedBefore[same] === area.value[same]) same += 1;
  written = written
    .filter(([start]) => start < same)
    .map(([start, end]) => [start, Math.min(end, same)]);
  changed();
}
