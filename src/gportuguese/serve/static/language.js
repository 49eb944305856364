// The language shown: its words, and numbers as it writes them.
import { keep, recall } from "./state.js";
import { STRINGS } from "./strings.js";

const browsers = navigator.language.toLowerCase().startsWith("pt") ? "pt" : "en";

export let language = STRINGS[recall("language")] ? recall("language") : browsers;

export function setLanguage(value) {
  language = value;
  keep({ language });
}

// The words for a key; numbers among the values are written as the language does.
export function say(key, values = {}) {
  return STRINGS[language][key].replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : value;
  });
}

export function number(value, options = { maximumFractionDigits: 2 }) {
  return value.toLocaleString(language, options);
}

export function percent(probability) {
  const options = { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 };
  return probability < 0.001 ? `< ${number(0.001, options)}` : number(probability, options);
}

// The name of a language in the one shown, or its code where the browser knows none.
export function nameOf(code) {
  try {
    return new Intl.DisplayNames([language], { type: "language" }).of(code);
  } catch {
    return code;
  }
}

// How a token is shown: its text with visible spaces, or what it stands for.
export function describeToken(name) {
  const special = /^<\|.*\|>$/.test(name) || name === "</s>";
  const partial = name.startsWith("bytes:\\x");
  if (special || partial) {
    return { shown: say(special ? "endOfText" : "partOfCharacter"), isText: false };
  }
  return { shown: name.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "⇥"), isText: true };
}
