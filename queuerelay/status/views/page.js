// Keeps the page as it is now, and the reader where they are.
//
// Every two seconds the page's own HTML is fetched and what is different is changed in place. What
// the reader is at stays: focus, scroll, open details, selected text, half-filled fields. Without
// this script everything works too, with reloads.
"use strict";
(() => {
  // Milliseconds between two looks; the longest between two that failed; how long one may take.
  const STEP = 2000, LONGEST = 30000, BOUND = 8000;
  const $ = (id) => document.getElementById(id);
  const pause = $("pause"), stale = $("stale"), ours = new Set(["pause", "stale", "said"]);
  let timer = 0, looking = false, failed = 0, paused = false;

  // What the reader is at.

  const selected = (node) => {
    const selection = getSelection();
    return selection !== null && !selection.isCollapsed && selection.containsNode(node, true);
  };
  const inUse = (node) => node.nodeType === Node.ELEMENT_NODE && (
    node.contains(document.activeElement) || node.matches("details[open]") ||
    node.querySelector("details[open]") !== null || selected(node));

  // What has to stay where it is in the window: what is in use, else what is in the middle.
  function landmark() {
    const visible = (node) => {
      const { top, bottom, height } = node.getBoundingClientRect();
      return height > 0 && bottom > 0 && top < innerHeight;
    };
    const used = [document.activeElement, ...document.querySelectorAll("details[open]")];
    const found = used.find((node) => node && node.closest("main [data-key]") && visible(node));
    return found || (document.elementFromPoint(innerWidth / 2, innerHeight / 3) || document.body)
      .closest("[data-key], section");
  }

  // Making one tree like another.

  // Not node.id: of a form that is its field of that name.
  const key = (node) => node.nodeType === Node.ELEMENT_NODE
    ? node.getAttribute("id") || node.getAttribute("data-key") || "" : "";

  function attributes(from, to) {
    // Whether details are open is the reader's business.
    const theirs = (name) => name === "open" && from.nodeName === "DETAILS";
    for (const { name, value } of to.attributes)
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    for (const { name } of [...from.attributes])
      if (!to.hasAttribute(name) && !theirs(name)) from.removeAttribute(name);
  }

  function morph(from, to) {
    attributes(from, to);
    const wanted = [...to.childNodes], names = new Set(wanted.map(key));
    const known = new Map(), kept = new Set();
    for (const child of [...from.childNodes]) {
      const name = key(child);
      if (!name) continue;
      if (known.has(name)) child.remove();
      else if (names.has(name)) known.set(name, child);
      // What is gone stays as long as somebody reads it.
      else if (inUse(child)) { kept.add(child); child.classList.add("past"); }
      else child.remove();
    }
    let at = from.firstChild;
    const next = () => { while (at && kept.has(at)) at = at.nextSibling; };
    const alike = (node, one) => node.nodeName === one.nodeName;
    for (const one of wanted) {
      next();
      const name = key(one);
      let found = name ? known.get(name) : at;
      // Two of one name: the second one is another one.
      known.delete(name);
      // Never past what has a name: that stays where it is, or the reader's focus would go.
      if (!name) while (found && !key(found) && !alike(found, one)) found = found.nextSibling;
      if (!found || found.nodeName !== one.nodeName || (!name && key(found))) {
        from.insertBefore(document.importNode(one, true), at);
        continue;
      }
      if (!name) while (at !== found) {
        const rest = at.nextSibling;
        at.remove();
        at = rest;
      }
      if (found === at) at = at.nextSibling;
      else from.insertBefore(found, at);
      if (found.nodeType !== Node.ELEMENT_NODE) {
        if (found.data !== one.data && !selected(found)) found.data = one.data;
      } else if (!ours.has(name)) {
        morph(found, one);
      }
    }
    while (at) {
      const rest = at.nextSibling;
      if (!kept.has(at)) at.remove();
      at = rest;
    }
  }

  function show(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    if (!fresh.getElementById("main") || !fresh.getElementById("health"))
      throw new Error("not the page");
    if (fresh.body.dataset.build !== document.body.dataset.build && !inUse($("main"))) {
      location.reload();
      return;
    }
    const focused = document.activeElement, mark = scrollY > 0 ? landmark() : null;
    const before = mark && mark.getBoundingClientRect().top;
    morph(document.body, fresh.body);
    document.title = fresh.title;
    attributes($("icon"), fresh.getElementById("icon"));
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    if (mark && mark.isConnected)
      scrollBy({ top: mark.getBoundingClientRect().top - before, behavior: "instant" });
  }

  // Looking.

  function plan(wait) {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(look, wait);
  }

  async function look() {
    if (looking) return;
    looking = true;
    try {
      const answer = await fetch(location.pathname + location.search, {
        cache: "no-store", signal: AbortSignal.timeout(BOUND), headers: { Accept: "text/html" },
      });
      if (!answer.ok) throw new Error(String(answer.status));
      const text = await answer.text();
      if (!paused) show(text);
      failed = 0;
      document.documentElement.classList.remove("stale");
      stale.hidden = true;
    } catch {
      failed += 1;
      document.documentElement.classList.add("stale");
      if (stale.hidden) {
        stale.textContent = `No answer. These figures are of ${$("at").textContent} UTC; trying again.`;
        stale.hidden = false;
      }
    } finally {
      looking = false;
      plan(Math.min(LONGEST, STEP * 2 ** Math.min(failed, 5)));
    }
  }

  document.addEventListener("visibilitychange", () => plan(0));
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    document.documentElement.classList.toggle("held-still", paused);
    plan(0);
  });
  addEventListener("pageshow", (event) => { if (event.persisted) plan(0); });

  // Doing: a form's answer is the page too, with what became of it.

  function say(text, bad) {
    const said = $("said");
    said.textContent = text;
    said.hidden = !text;
    said.classList.toggle("trouble", bad);
    if (text && document.activeElement === document.body) said.focus({ preventScroll: true });
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target, by = event.submitter;
    if (form.method !== "post") return;
    event.preventDefault();
    if (form.dataset.busy) return;
    form.dataset.busy = "1";
    try {
      const answer = await fetch(by && by.hasAttribute("formaction") ? by.formAction : form.action, {
        method: "POST", body: new URLSearchParams(new FormData(form, by)),
        headers: { Accept: "text/html" }, signal: AbortSignal.timeout(4 * BOUND),
      });
      const text = await answer.text();
      if (!answer.ok) {
        const fresh = new DOMParser().parseFromString(text, "text/html");
        say(fresh.body.textContent.trim().slice(0, 300) || `Refused: ${answer.status}`, true);
        return;
      }
      for (const one of [form, by].map((node) => node && node.closest("details.sure"))) if (one) one.open = false;
      form.reset();
      const fresh = new DOMParser().parseFromString(text, "text/html");
      say(fresh.getElementById("said")?.textContent.trim() || "Done.", false);
      // What is shown is collected each second.
      plan(1000);
    } catch {
      say("No answer: whether it was done is not known.", true);
    } finally {
      delete form.dataset.busy;
    }
  });

  plan(STEP);
})();
