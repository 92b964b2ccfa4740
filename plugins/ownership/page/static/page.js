// Airflow keeps the chosen theme under "theme" ("light", "dark" or "system"); this runs before the first paint.
"use strict";

const theme = () => {
  let chosen = "system";
  try {
    chosen = localStorage.getItem("theme") || "system";
  } catch {
    // Storage may be closed to us; then the system's preference holds.
  }
  document.documentElement.dataset.theme = chosen;
};
theme();
addEventListener("storage", theme);

// Airflow shows the page in a frame that may not navigate what is around it. Links to Airflow's own pages are
// therefore followed by the document around, which is of the same origin.
const outside = () => {
  try {
    return window.parent === window ? null : window.parent.document;
  } catch {
    return null;
  }
};

addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  const link = target?.closest("a[data-top]");
  const around = outside();
  if (link && around && !event.defaultPrevented) {
    event.preventDefault();
    const other = around.createElement("a");
    other.href = link.href;
    if (event.ctrlKey || event.metaKey || event.shiftKey) {
      other.target = "_blank";
      other.rel = "noopener";
    }
    around.body.append(other);
    other.click();
    other.remove();
    return;
  }
  const copy = target?.closest("[data-copy]");
  if (copy) {
    const text = document.getElementById(copy.dataset.copy);
    navigator.clipboard.writeText(text.textContent).then(
      () => { copy.textContent = "Copied"; },
      () => { getSelection().selectAllChildren(text); },
    );
  }
  if (target?.closest("[data-reload]")) location.reload();
});

// What moves while a transfer is carried out is asked for again, until it has come to an end.
const FAST = 1000;
const SLOW = 5000;

const follow = (section) => {
  const holder = section.querySelector("[data-live]");
  const body = () => holder.querySelector(".livebody");
  const first = body().dataset.state;
  let before = "";
  const ask = async () => {
    let wait = body().dataset.poll === "slow" ? SLOW : FAST;
    if (!document.hidden) {
      try {
        const answer = await fetch(section.dataset.src, { headers: { accept: "text/html" } });
        const content = answer.ok || answer.status === 404 ? await answer.text() : null;
        if (content === null) wait = SLOW;
        else if (content !== before) holder.innerHTML = content;
        before = content ?? before;
      } catch {
        wait = SLOW;
      }
      const now = body();
      // The rest of the page (actions, batches) is another one in another state.
      if (!now || now.dataset.state !== first || now.dataset.poll === undefined) return location.reload();
    }
    setTimeout(ask, wait);
  };
  if (body()?.dataset.poll !== undefined) setTimeout(ask, FAST);
};

addEventListener("DOMContentLoaded", () => {
  const live = document.getElementById("live");
  if (live) follow(live);
  for (const each of document.querySelectorAll("[data-copy], [data-reload]")) each.hidden = false;
  // A form is sent once; a user who waits for a page sees that it is loading.
  for (const form of document.forms) {
    form.addEventListener("submit", () => {
      document.body.classList.add("busy");
      for (const button of form.querySelectorAll("button")) button.setAttribute("aria-busy", "true");
    });
  }
  document.querySelectorAll("table.transfers tbody tr").forEach((row) => {
    row.addEventListener("click", (event) => {
      if (!(event.target instanceof Element) || event.target.closest("a, button, summary")) return;
      if (getSelection().isCollapsed) row.querySelector("a.row")?.click();
    });
  });
});
addEventListener("beforeunload", () => document.body.classList.add("busy"));
addEventListener("pageshow", () => document.body.classList.remove("busy"));
