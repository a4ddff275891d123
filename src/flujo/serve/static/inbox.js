// Keys for the inbox and for a question. Everything works without this script.
"use strict";

const isTyping = (target) => target.closest("input:not([type=checkbox]), textarea, select") !== null;

function move(step) {
  const questions = [...document.querySelectorAll("a.question")];
  if (questions.length > 0) {
    const at = questions.indexOf(document.activeElement?.closest("tr")?.querySelector("a.question"));
    const next = at < 0 ? (step > 0 ? 0 : questions.length - 1) : at + step;
    questions[Math.max(0, Math.min(next, questions.length - 1))].focus();
  } else {
    document.querySelector(step > 0 ? "a[rel=next]" : "a[rel=prev]")?.click();
  }
}

function select() {
  document.activeElement?.closest("tr")?.querySelector("input[name=q]")?.click();
}

function help() {
  const keys = document.querySelector("details.keys");
  if (keys) {
    keys.open = !keys.open;
    keys.querySelector("summary").focus();
  }
}

const actions = {
  j: () => move(1),
  k: () => move(-1),
  x: select,
  i: () => document.querySelector("nav a")?.click(),
  "?": help,
};

document.addEventListener("keydown", (event) => {
  const action = actions[event.key];
  if (action && !event.ctrlKey && !event.metaKey && !event.altKey && !isTyping(event.target)) {
    event.preventDefault();
    action();
  }
});
