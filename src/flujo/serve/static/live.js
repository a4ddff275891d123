// Keeps the parts of a page that are marked with `data-live` as they are on the server.
// Without it a page shows what was there when it was loaded.
"use strict";
(() => {
  const parts = () => document.querySelectorAll("[data-live]");
  const opened = (element) => element.closest("details[data-path]");
  let asking = false;
  let again = false;

  function replace(part, fresh) {
    if (part.innerHTML === fresh.innerHTML) return;
    const states = new Map();
    for (const each of part.querySelectorAll("details[data-path]")) states.set(each.dataset.path, each.open);
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    part.replaceChildren(...fresh.childNodes);
    for (const each of part.querySelectorAll("details[data-path]")) {
      if (states.has(each.dataset.path)) each.open = states.get(each.dataset.path);
    }
    if (focused === null) return;
    const path = focused.tagName === "SUMMARY" && opened(focused) ? opened(focused).dataset.path : null;
    const same = [...part.querySelectorAll(focused.tagName)].find((each) =>
      path === null ? each.getAttribute("href") === focused.getAttribute("href") : opened(each)?.dataset.path === path);
    same?.focus({ preventScroll: true });
  }

  async function refresh() {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
      if (answer.ok) {
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        for (const part of parts()) {
          const fresh = part.id ? page.getElementById(part.id) : null;
          if (fresh !== null) replace(part, fresh);
        }
      }
    } catch {
      // The server is away or the session has ended; the next look tells.
    }
    asking = false;
    if (again) {
      again = false;
      refresh();
    }
  }

  const every = Number(document.querySelector("[data-every]")?.dataset.every);
  if (every) setInterval(() => document.hidden || refresh(), every * 1000);

  const followed = document.querySelector("[data-events]");
  if (!followed) return;
  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, 300);
  };
  const stream = new EventSource(followed.dataset.events);
  stream.addEventListener("line", (event) => {
    const item = new DOMParser().parseFromString(event.data, "text/html").querySelector("li");
    const known = [...followed.children].slice(-200);
    if (item === null || known.some((each) => each.dataset.key === item.dataset.key)) return;
    const last = followed.lastElementChild;
    const atEnd = followed.scrollTop + followed.clientHeight >= followed.scrollHeight - 4;
    if (item.dataset.of && last?.dataset.of === item.dataset.of) {
      last.querySelector("span").append(item.querySelector("span").textContent);
      last.dataset.key = item.dataset.key;
    } else {
      followed.append(item);
    }
    if (atEnd) followed.scrollTop = followed.scrollHeight;
  });
  stream.addEventListener("changed", soon);
  stream.addEventListener("ended", () => {
    stream.close();
    soon();
  });
})();
