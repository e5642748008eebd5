"use strict";
(() => {
  const store = (key, value) => {
    try {
      if (value === undefined) return JSON.parse(sessionStorage.getItem(key));
      sessionStorage.setItem(key, JSON.stringify(value));
    } catch (error) { /* no storage: the state is not kept over a reload */ }
    return null;
  };
  const place = "hpsearch " + location.pathname;
  const state = store(place) || {};
  const keep = () => store(place, state);

  // A table sorts by a click on a column's name; a missing value comes last.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.key === undefined ? cell.textContent.trim() : cell.dataset.key;
  };
  const order = (left, right, down) => {
    const absent = (text) => text === "" || text === "–";
    if (absent(left) || absent(right)) return absent(left) - absent(right);
    const numeric = !isNaN(left) && !isNaN(right);
    const found = numeric ? left - right : left.localeCompare(right, "en", { numeric: true });
    return down ? -found : found;
  };
  const sort = (table, column, down) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((a, b) => order(keyOf(a, column), keyOf(b, column), down));
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((head, number) => {
      if (number === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  document.querySelectorAll("table.sortable").forEach((table) => {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const before = head.getAttribute("aria-sort");
        const numeric = !head.classList.contains("text") && column > 1;
        const down = before === null ? numeric : before === "ascending";
        sort(table, column, down);
        state.sort = [column, down];
        keep();
      });
    });
    if (state.sort && state.sort[0] < table.tHead.rows[0].cells.length) sort(table, ...state.sort);
  });

  // A hint beside a table that is wider than the page, until its end is reached.
  document.querySelectorAll(".scroll").forEach((box) => {
    const hint = box.previousElementSibling;
    const update = () => {
      const left = box.scrollWidth - box.clientWidth - box.scrollLeft;
      box.classList.toggle("more", left > 4);
      if (hint && hint.classList.contains("hint")) hint.hidden = box.scrollWidth <= box.clientWidth;
    };
    box.addEventListener("scroll", update, { passive: true });
    new ResizeObserver(update).observe(box);
    update();
  });

  // What is unfolded stays unfolded over a reload, and the page where it was.
  document.querySelectorAll("details[id], input[type=checkbox][id]").forEach((part) => {
    const name = part.tagName === "DETAILS" ? "open" : "checked";
    if (state[part.id] !== undefined) part[name] = state[part.id];
    part.addEventListener(name === "open" ? "toggle" : "change", () => {
      state[part.id] = part[name];
      keep();
    });
  });
  addEventListener("pagehide", () => { state.top = scrollY; keep(); });

  // While the search runs the page loads itself again, unless that is paused.
  const pause = document.getElementById("pause");
  if (!pause) return;
  if (state.top) scrollTo(0, state.top);
  const seconds = Number(pause.dataset.seconds);
  let timer = null;
  const show = () => {
    clearTimeout(timer);
    timer = state.paused ? null : setTimeout(() => location.reload(), 1000 * seconds);
    pause.textContent = state.paused ? "Reload again" : "Pause";
    pause.hidden = false;
  };
  pause.addEventListener("click", () => { state.paused = !state.paused; keep(); show(); });
  show();
})();
