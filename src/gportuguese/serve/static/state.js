// What survives a reload, in this browser only. The password is not part of it.
const KEY = "gpt-pt";

let saved = {};
try {
  saved = { ...JSON.parse(localStorage.getItem(KEY)) };
} catch {
  // the browser keeps nothing, or something else wrote there: the page begins anew
}

export function recall(name) {
  return saved[name];
}

export function keep(values) {
  Object.assign(saved, values);
  try {
    localStorage.setItem(KEY, JSON.stringify(saved));
  } catch {
    // storage is full or forbidden: the page works without it
  }
}
