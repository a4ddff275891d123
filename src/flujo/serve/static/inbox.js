// Keys for the inbox and for a question. Everything works without this script.
"use strict";

const isTyping = (target) => target.closest("input:not([type=checkbox]), textarea, select") !== null;

function move(step) {
  const questions = [...document.querySelectorAll("a.question")];
  if (questions.length > 0) {
    const at = questions.indexOf(document.activeElement?.closest("tr")?.querySelector("a.question"));
    const next = at < 0 ? (step > 0 ? 0 : questions.length - 1) : at + step;
    questions[Math.max(0, Math.min(next, questions.length - 1))].focus();
  } else if (step > 0) {
    document.querySelector("a[rel=next]")?.click();
  } else {
    history.back();
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
  i: () => document.querySelector(".top nav a")?.click(),
  "?": help,
};

// Keys of one letter can get in the way of other tools, so they can be turned off.
const areOn = () => localStorage.getItem("flujo-keys") !== "off";
const button = document.querySelector(".keys .switch");

function label() {
  button.textContent = areOn() ? "Turn these keys off" : "Turn these keys on";
}

if (button) {
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    localStorage.setItem("flujo-keys", areOn() ? "off" : "on");
    label();
  });
}

document.addEventListener("keydown", (event) => {
  const action = actions[event.key];
  if (action && areOn() && !event.ctrlKey && !event.metaKey && !event.altKey && !isTyping(event.target)) {
    event.preventDefault();
    action();
  }
});
